"""What the program of a causal model carries from step to step: the manifest's `states`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import BundleError
from .entry import Entry
from .formats import WITH_STATES

MOST_STATE = 1 << 28  # numbers of all states together: 1 GB
MOST_AXES = 4


def read_states(entry: Entry, version: int) -> dict[str, tuple[int, ...]]:
    """Read the states of a whole manifest: the shape of each by its name, in the order in which a program takes them.

    Raises:
        BundleError: They are missing, are not valid, or are in another format than theirs.
    """
    if version != WITH_STATES:
        if "states" in entry.values:
            raise BundleError(f"has 'states', which is for format {WITH_STATES}, not {version}")
        return {}
    states = entry.entry("states")
    if not states.values:
        raise BundleError("needs at least one state in 'states'")
    shapes = {name: _shape(name, value) for name, value in states.values.items()}
    if (size := state_size(shapes)) > MOST_STATE:
        raise BundleError(f"has states of {size} numbers, which are more than {MOST_STATE}")
    return shapes


def state_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many numbers states have together: the length of the vector in which they follow each other."""
    return sum(map(math.prod, shapes.values()))


def check_states(shapes: Mapping[str, tuple[int, ...]], model: Mapping[str, object], embedding: str | None) -> None:
    """Check that a manifest has states if, and only if, its model is a causal one.

    Raises:
        BundleError: It is not so, or the program with the states takes tokens.
    """
    is_causal = model.get("causal") is True
    if is_causal != bool(shapes):
        found = "is of a causal model and lacks 'states'" if is_causal else "has 'states', but its model is not causal"
        raise BundleError(f"contradicts itself: it {found}")
    if shapes and embedding is not None:
        raise BundleError("has 'states' and an 'embedding', which do not go together")


def _shape(name: str, value: object) -> tuple[int, ...]:
    sizes = value if isinstance(value, list) else []
    if not 1 <= len(sizes) <= MOST_AXES or not all(type(size) is int and 1 <= size <= MOST_STATE for size in sizes):
        raise BundleError(f"needs 1 to {MOST_AXES} whole numbers of at least 1 for {f'states.{name}'!r:.80}")
    return tuple(sizes)
