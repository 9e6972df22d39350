"""Numbers and names are shown as people read them."""

import math

import pytest

from vmp_edge.formatting import interval, milliseconds, number, percent, plain, points, quantity, size


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1064.0, 3, "1060"), (12.34, 3, "12.3"), (0.045, 3, "0.0450"), (9.996, 3, "10.0"), (0.0, 3, "0"),
        (1234.0, 2, "1200"), (123456.0, 3, "123000"), (-0.5, 2, "-0.50"), (0.0001, 2, "0.00010"),
        (2.4e-6, 2, "2.4e-6"), (math.nan, 3, "unknown"), (math.inf, 3, "unknown"),
    ],
)  # fmt: skip
def test_numbers_have_significant_digits_and_no_needless_power(value, digits, text):
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1060.0, "1060 ms"), (1064.4, "1060 ms"), (1.06, "1.06 ms"), (12.345, "12.3 ms"), (99.97, "100 ms"),
        (0.5, "0.500 ms"), (0.0852, "85.2 µs"), (9994.0, "9990 ms"), (9996.0, "10.0 s"), (18_234.0, "18.2 s"),
        (0.0, "0 ms"), (math.nan, "unknown ms"),
    ],
)  # fmt: skip
def test_milliseconds(value, text):
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (999_499, "999 kB"), (999_950, "1.00 MB"),
        (3_440_000, "3.44 MB"), (75_200_000, "75.2 MB"), (1_060_000_000, "1.06 GB"), (2 * 10**15, "2000 TB"),
    ],
)  # fmt: skip
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0%"), (1.0, "100.0%"), (2 / 3, "66.7%"), (0.0025, "0.25%"), (0.00001, "<0.01%"),
        (0.9999, ">99.9%"), (0.9994, "99.9%"), (0.01, "1.0%"), (0.00999, "1.0%"), (math.nan, "unknown"),
    ],
)  # fmt: skip
def test_percentages(share, text):
    assert percent(share) == text


def test_the_rest():
    values = (0.001, 0.0001, 1e-5, 29.97, 1e6, 15, 0, -2.5, 100.0, 5.5e-7)
    assert " ".join(map(plain, values)) == "0.001 0.0001 1e-5 29.97 1000000 15 0 -2.5 100 5.5e-7"
    assert interval((0.5958, 0.9821)) == "59.6 to 98.2%"
    assert [points(value) for value in (1.46, -0.2, 0.04, -0.04)] == [
        "+1.5 points", "-0.2 points", "0.0 points", "0.0 points"
    ]  # fmt: skip
    assert quantity(1, "class", "classes") == "1 class" and quantity(1200, "video") == "1,200 videos"
    assert quantity(0, "class", "classes") == "0 classes"
