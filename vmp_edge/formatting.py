"""Write numbers as people read them. Everything that the commands and the report show is written by these."""

from __future__ import annotations

import math

_UNITS = ("kB", "MB", "GB", "TB")
UNKNOWN = "unknown"  # stands for a number that is not finite


def number(value: float, digits: int = 3) -> str:
    """Return a number with a fixed count of significant digits: `1060`, `12.3`, `0.0450`.

    Only numbers below 0.0001 get a power of ten: `2.4e-6`.

    Args:
        value: The number.
        digits: Count of the significant digits.
    """
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    exponent = int(power)
    if exponent < -4:
        return f"{mantissa}e{exponent}"
    return f"{float(f'{mantissa}e{power}'):.{max(0, digits - 1 - exponent)}f}"


def plain(value: float) -> str:
    """Return a number that somebody chose, as it would be typed: `0.001`, `29.97`, `1000000`, `1e-5`.

    Args:
        value: The number. At most six digits of it are shown.
    """
    text = number(value, 6)
    mantissa, mark, power = text.partition("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa) + mark + power


def milliseconds(value: float) -> str:
    """Return a duration in the unit that people read it in: `85.2 µs`, `12.3 ms`, `1060 ms`, `12.3 s`.

    Args:
        value: Milliseconds.
    """
    rounded = _rounded(value)
    if not math.isfinite(value) or value == 0 or 0.1 <= abs(rounded) < 10_000:
        return f"{number(value)} ms"
    return f"{number(value * 1e3)} µs" if abs(rounded) < 0.1 else f"{number(value / 1e3)} s"


def size(count: float) -> str:
    """Return a size in decimal units: `512 bytes`, `3.44 MB`.

    Args:
        count: Bytes.
    """
    if not math.isfinite(count) or abs(count) < 1000:
        return f"{number(count) if not math.isfinite(count) else int(count)} bytes"
    power = 1
    while power < len(_UNITS) and abs(_rounded(count / 1000**power)) >= 1000:
        power += 1
    return f"{number(count / 1000**power)} {_UNITS[power - 1]}"


def percent(share: float) -> str:
    """Return a share in percent: `83.3%`, below one percent `0.25%`. Only a whole is 100.0%, and only nothing is 0.0%.

    Args:
        share: Share, 0 to 1.
    """
    if not math.isfinite(share):
        return UNKNOWN
    if 0.9995 <= share < 1:
        return ">99.9%"
    if 0 < share < 0.00995:
        return f"{100 * share:.2f}%" if share >= 0.00005 else "<0.01%"
    return f"{100 * share:.1f}%"


def interval(shares: tuple[float, float]) -> str:
    """Return an interval of shares in percent: `59.6 to 98.2%`."""
    return f"{percent(shares[0]).removesuffix('%')} to {percent(shares[1])}"


def points(value: float) -> str:
    """Return a difference of percentages with its sign: `+1.5 points`, `0.0 points`."""
    if not math.isfinite(value):
        return UNKNOWN
    return "0.0 points" if round(value, 1) == 0 else f"{value:+.1f} points"


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 video`, `1,200 videos`, `2 classes`.

    Args:
        count: The count.
        noun: The noun for one.
        plural: The noun for several; None adds an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _rounded(value: float) -> float:
    """Return a value rounded to the digits that are shown."""
    return float(f"{value:.2e}")
