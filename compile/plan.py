"""The plan of a quantised build, checked before anything is loaded: its recipe, its clips, its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet, ClipSetError
from vmp_edge.errors import UsageError

from . import precision
from .precision import Precision, Quantiser

if TYPE_CHECKING:
    from vmp_edge.calibration.quantisation import Recipe

CLIPS = 64  # clips to calibrate on, unless the user says otherwise


@dataclass(frozen=True)
class QuantisationOptions:
    """The options of a request that are for quantised builds alone.

    Attributes:
        calibrate: A clip set to calibrate on; None draws procedural clips for egomotion-nano.
        calibration_clips: How many of its clips to use; None takes `CLIPS`.
        finetune: Steps in which the weights learn from the float model on those clips; None for none.
        evaluate: A labelled clip set on which the bundle is measured beside the float model; None draws procedural
            clips for egomotion-nano.
        max_drop: Points of top-1 (0 to 100) that the bundle may lose there; None for any.
    """

    calibrate: Path | None = None
    calibration_clips: int | None = None
    finetune: int | None = None
    evaluate: Path | None = None
    max_drop: float | None = None

    @property
    def flags(self) -> list[str]:
        """The options that were set, as the command line names them."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return [f"--{name.replace('_', '-')}" for name in names]


@dataclass(frozen=True)
class Plan:
    """The recipe of a quantised build, and the clips on which it calibrates and measures.

    Attributes:
        precision: The precision.
        recipe: How the layers are quantised.
        count: Number of clips to calibrate on.
        calibration: Videos to calibrate on; None if none were given. Procedural clips are drawn then, if possible.
        held_out: Labelled videos to measure on; None if none were given. Procedural clips are drawn then, if possible.
        procedural: Whether the model is the one for which clips can be drawn.
        finetune: Steps of fine-tuning on the calibration clips; 0 for none.
        max_drop: Points of top-1 that may be lost; None for any.
    """

    precision: Precision
    recipe: Recipe
    count: int
    calibration: ClipSet | None
    held_out: ClipSet | None
    procedural: bool
    finetune: int
    max_drop: float | None


def plan(chosen: Precision, procedural: bool, options: QuantisationOptions) -> Plan | None:
    """Check the options of a quantised build and read its clip sets.

    Args:
        chosen: The precision of the build.
        procedural: Whether clips can be drawn for the model.
        options: What the user asks for.

    Returns:
        The plan, or None if the precision is not a quantised one.

    Raises:
        UsageError: An option is wrong, or there are no clips for what the user asks.
        ClipSetError: A clip set cannot be read.
    """
    if not chosen.is_quantised:
        if options.flags:
            known = ", ".join(precision.quantised_by(Quantiser.RECIPE, Quantiser.DELEGATE))
            raise UsageError(f"{', '.join(options.flags)}: for the precisions {known}, not for {chosen.name}")
        return None
    from vmp_edge.calibration import quantisation

    recipe = quantisation.load(chosen.name)
    count = CLIPS if options.calibration_clips is None else options.calibration_clips
    finetune = options.finetune or 0
    _check_numbers(chosen, count, options)
    calibration, held_out = (
        None if folder is None else clipset.read(folder) for folder in (options.calibrate, options.evaluate)
    )
    if recipe.needs_clips and calibration is None and not procedural:
        raise UsageError(
            f"{chosen.name} is calibrated on clips: give some {count} videos of what the camera will see with "
            f"--calibrate (a folder, .csv or .txt){chosen.without_clips}"
        )
    if finetune and calibration is None and not procedural:
        raise UsageError("--finetune learns from videos: give some of what the camera will see with --calibrate")
    if options.max_drop is not None and held_out is None and not procedural:
        raise UsageError("--max-drop is measured on labelled videos: give them with --evaluate (class folders or .csv)")
    _check_videos(calibration, count, held_out)
    return Plan(chosen, recipe, count, calibration, held_out, procedural, finetune, options.max_drop)


def _check_videos(calibration: ClipSet | None, count: int, held_out: ClipSet | None) -> None:
    """Check that there are as many videos as are needed; one clip is taken of each to calibrate on."""
    for clips, needed in ((calibration, count), (held_out, 1)):
        if clips is None:
            continue
        missing = [entry.path for entry in clips.entries if not entry.path.exists()]
        there = len(clips) - len(missing)
        if there < needed:
            absent = f", {len(missing)} of whose videos do not exist ({missing[0]} for one)" if missing else ""
            advice = f"; give more, or --calibration-clips {there}" if clips is calibration and there else ""
            raise ClipSetError(
                f"{needed} clips are needed, {clips.name} gives {there} from {len(clips)} videos{absent}{advice}"
            )


def _check_numbers(chosen: Precision, count: int, options: QuantisationOptions) -> None:
    if count < 1:
        raise UsageError(f"--calibration-clips is {count}; it must be at least 1")
    if options.finetune is not None and options.finetune < 1:
        raise UsageError(f"--finetune is {options.finetune}; give steps, 1 or more")
    if options.finetune and chosen.by_delegate:
        recipes = ", ".join(precision.quantised_by(Quantiser.RECIPE))
        raise UsageError(f"--finetune learns a recipe's rounding ({recipes}), not {chosen.name}'s")
    if options.max_drop is not None and not (math.isfinite(options.max_drop) and options.max_drop >= 0):
        raise UsageError(f"--max-drop is {options.max_drop:g}; give points of top-1, 0 or more")
