"""Recipes: which layers of a program are quantised, and how. Each is one YAML file in ``calibration/recipes``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from vmp_edge.errors import UsageError

FOLDER = Path(__file__).parents[1] / "recipes"
STATIC, DYNAMIC, FLOAT = ACTIVATIONS = ("static", "dynamic", "float")
HALF = "float16"
_FIELDS = {"float": "keep_float"}  # keys of the YAML files whose fields have another name in Python


@dataclass(frozen=True)
class Recipe:
    """The settings for quantising a program.

    Layers are named like the program's parameters, without ``.weight``. Patterns are those of `fnmatch`.

    Attributes:
        name: The precision's name.
        description: One sentence for users.
        activations: Kind of all layers that no pattern below names. ``static``: each tensor has one range, fixed by
            calibration. ``dynamic``: each token has a range, chosen at run time. ``float``: only weights are quantised.
            ``float16``: nothing is quantised; weights and activations have half the bits
            (`vmp_edge.compile.graph.in_float16`).
        ranges: How the ranges of static layers' inputs are chosen, see `RangeObserver`.
        outputs: How the ranges of static layers' outputs are chosen; None leaves the outputs in float32. XNNPACK needs
            them fixed, other engines skip them.
        percentile: Used where ``ranges`` or ``outputs`` is ``percentile``.
        headroom: Factor, 1 or more, by which fixed ranges are widened around zero.
        dynamic: Patterns of layers that are dynamic in spite of ``activations``.
        keep_float: Patterns of layers that are not quantised. For ``float16``: patterns of any parameters, whose
            operations compute in float32. In YAML the key is ``float``.
        smooth: Share, 0 to 1, of the differences between a layer's input channels that is moved into its weights
            (SmoothQuant, Xiao et al., arXiv 2211.10438); 0 for none.
        smoothed: Patterns of layers whose inputs are smoothed, at the cost of a multiplication of the input.
        rotated: Patterns of layers whose inputs are rotated by Hadamard matrices, and their weights rotated back
            (QuaRot, arXiv 2404.00456; for state-space models Quamba, arXiv 2410.13229). Costs a matrix product.
    """

    name: str
    description: str
    activations: str
    ranges: str = "percentile"
    outputs: str | None = "percentile"
    percentile: float = 99.99
    headroom: float = 1.0
    dynamic: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    smooth: float = 0.0
    smoothed: tuple[str, ...] = ()
    rotated: tuple[str, ...] = ()

    @property
    def needs_clips(self) -> bool:
        """True if the recipe learns anything from clips."""
        return self.activations == STATIC or bool(self.smooth and self.smoothed)

    def stays(self, parameter: str) -> bool:
        """Return whether a parameter stays float32.

        Args:
            parameter: Its name; a layer's parameter may end in ``.weight`` or ``.bias``, or be the layer's bare name.
        """
        return matches(parameter.removesuffix(".weight").removesuffix(".bias"), self.keep_float)

    def kind(self, layer: str) -> str | None:
        """Return a layer's kind, one of `ACTIVATIONS`, or None if the layer is not quantised."""
        if self.stays(layer):
            return None
        return DYNAMIC if matches(layer, self.dynamic) else self.activations


def matches(layer: str, patterns: Sequence[str]) -> bool:
    """Return whether a layer's name matches any of the patterns."""
    return any(fnmatchcase(layer, pattern) for pattern in patterns)


def names() -> list[str]:
    """Return the names of the recipes that come with the package, one for each precision."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Recipe:
    """Load the recipe of a precision.

    Raises:
        UsageError: There is no recipe of this name.
    """
    if name not in names():
        raise UsageError(f"there is no recipe {name!r}; there are {', '.join(names())}")
    entry = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    fields: dict[str, Any] = {
        _FIELDS.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    return Recipe(name, **fields)
