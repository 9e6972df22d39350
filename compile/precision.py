"""The precisions: one record for each, with how a program gets it and how far a bundle may be from its source model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vmp_edge.errors import UsageError


class Quantiser(Enum):
    """The quantiser that makes a program of a precision."""

    NONE = "none"  # the program stays in floating point
    RECIPE = "recipe"  # our quantiser, by the recipe of the precision's name in calibration/recipes
    DELEGATE = "delegate"  # the delegate's own quantiser, after the scans are decomposed into ordinary operations


@dataclass(frozen=True)
class Difference:
    """Parity is judged by the largest difference of any logit.

    Attributes:
        tolerance: The largest difference that is accepted; an engine's record may accept more in fp32.
        of_spread: Whether the difference is a share of the logits' spread, the clip's largest logit less its smallest.
    """

    tolerance: float
    of_spread: bool = False


@dataclass(frozen=True)
class Cosine:
    """Parity is judged by the cosine between the logits of all clips, where single logits tell little.

    Attributes:
        least: The smallest cosine that is accepted.
    """

    least: float


@dataclass(frozen=True)
class Precision:
    """All facts about a precision.

    Attributes:
        name: The precision's name. A precision with a recipe has it as ``calibration/recipes/NAME.yaml``.
        parity: How a bundle's logits are compared with the source model's.
        least_feature_cosine: The smallest cosine of a clip's features with the source model's that is accepted.
            Recognising by prototypes is by cosine.
        quantiser: The quantiser that makes the program.
        drawn_clips: On how many procedural clips a quantised bundle is measured if no labelled videos are given. It is
            fewer where an emulator may have to run them.
        without_clips: Text at the end of the error that asks for calibration clips.
    """

    name: str
    parity: Difference | Cosine
    least_feature_cosine: float
    quantiser: Quantiser = Quantiser.NONE
    drawn_clips: int = 500
    without_clips: str = ""

    @property
    def is_quantised(self) -> bool:
        """True if the program becomes integers, with ranges that may be learnt from clips."""
        return self.quantiser is not Quantiser.NONE

    @property
    def by_recipe(self) -> bool:
        """True if our own quantiser makes the program, in PT2E's words."""
        return self.quantiser is Quantiser.RECIPE

    @property
    def by_delegate(self) -> bool:
        """True if a delegate's quantiser makes the program."""
        return self.quantiser is Quantiser.DELEGATE


# The registry.
PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        Precision("fp32", Difference(1e-4), 0.9999),
        Precision("fp16", Difference(5e-3, of_spread=True), 0.999),
        Precision(
            "int8",
            Cosine(0.97),
            0.9,
            Quantiser.RECIPE,
            without_clips=", or take --precision int8-dynamic, which needs none",
        ),
        Precision("int8-dynamic", Cosine(0.98), 0.95, Quantiser.RECIPE),
        Precision("int8-weight-only", Cosine(0.99), 0.95, Quantiser.RECIPE),
        Precision("16a8w", Cosine(0.99), 0.95, Quantiser.DELEGATE, drawn_clips=60),
    )
}


def find(name: str) -> Precision:
    """Return the record of a precision.

    Raises:
        UsageError: There is no such precision.
    """
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}; known are {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def quantised_by(*quantisers: Quantiser) -> tuple[str, ...]:
    """List the names of the precisions that these quantisers make."""
    return tuple(precision.name for precision in PRECISIONS.values() if precision.quantiser in quantisers)
