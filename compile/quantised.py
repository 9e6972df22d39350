"""What a quantised build does beyond lowering: its clips, its program, what it recognises beside the float model."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet, Entry
from vmp_edge.calibration.decoding import Input, Progress, Video, Videos, load_videos
from vmp_edge.calibration.measure import Comparison, Subject, evaluate
from vmp_edge.calibration.report import Report
from vmp_edge.errors import BuildError, UsageError

from .lowering import CALIBRATED, QUANTISED

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from vmp_edge.calibration.quantisation import Recipe

CLIPS = 64  # to calibrate on
HELD_OUT = 500  # procedural clips to measure on
EMULATED = 60  # likewise where an emulator may have to run them
SHOWN = 4  # clips over which the layers' signal-to-noise ratios are taken
_OTHERWISE = {"int8": ", or take --precision int8-dynamic, which needs none"}
# of a request, for quantised builds alone
OPTIONS = ("calibrate", "calibration_clips", "finetune", "evaluate", "max_drop")
SUFFIX = ".report.html"  # of the report beside the bundle


@dataclass(frozen=True)
class Plan:
    """A quantised build's clips, checked before anything is done.

    Attributes:
        recipe: how it is quantised.
        count: clips to calibrate on.
        calibration: videos to calibrate on; None if there are none, or if the procedural ones are to be drawn.
        held_out: labelled videos to measure on; likewise.
        procedural: whether the model is the one for which clips can be drawn.
        finetune: steps of fine-tuning on the clips of the calibration; 0 for none.
        max_drop: points of top-1 that may be lost; None for any.
        drawn: how many procedural clips it is measured on without `held_out`.
    """

    recipe: Recipe
    count: int
    calibration: ClipSet | None
    held_out: ClipSet | None
    procedural: bool
    finetune: int
    max_drop: float | None
    drawn: int


def plan(precision: str, procedural: bool, options: dict[str, Any]) -> Plan | None:
    """Check what is asked of a build.

    Args:
        precision: of the build.
        procedural: whether clips can be drawn for the model.
        options: a request's `OPTIONS`.

    Returns:
        None if the build is not a quantised one.

    Raises:
        UsageError: an option is wrong, or there are no clips for what is asked.
        ClipSetError: a clip set cannot be read.
    """
    if precision not in (*QUANTISED, *CALIBRATED):
        if given := [name for name in OPTIONS if options[name] is not None]:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(f"{names}: for the precisions {', '.join((*QUANTISED, *CALIBRATED))}, not for {precision}")
        return None
    from vmp_edge.calibration import quantisation

    recipe = quantisation.load(precision)
    count, max_drop = options["calibration_clips"], options["max_drop"]
    count = CLIPS if count is None else count
    if count < 1:
        raise UsageError(f"--calibration-clips is {count}; it must be at least 1")
    finetune = options["finetune"] or 0
    if options["finetune"] is not None and finetune < 1:
        raise UsageError(f"--finetune is {finetune}; give steps, 1 or more")
    if finetune and precision in CALIBRATED:
        raise UsageError(f"--finetune learns a recipe's rounding ({', '.join(QUANTISED)}), not {precision}'s")
    if max_drop is not None and not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"--max-drop is {max_drop:g}; give points of top-1, 0 or more")
    calibration, held_out = (
        None if options[name] is None else clipset.read(options[name]) for name in ("calibrate", "evaluate")
    )
    if recipe.needs_clips and calibration is None and not procedural:
        raise UsageError(
            f"{precision} is calibrated on clips: give some {count} videos of what the camera will see with "
            f"--calibrate (a folder, .csv or .txt){_OTHERWISE.get(precision, '')}"
        )
    if finetune and calibration is None and not procedural:
        raise UsageError("--finetune learns from videos: give some of what the camera will see with --calibrate")
    if max_drop is not None and held_out is None and not procedural:
        raise UsageError("--max-drop is measured on labelled videos: give them with --evaluate (class folders or .csv)")
    drawn = HELD_OUT if precision in QUANTISED else EMULATED
    return Plan(recipe, count, calibration, held_out, procedural, finetune, max_drop, drawn)


@dataclass(frozen=True)
class Quantised:
    """A quantised program with what it was learnt from.

    Attributes:
        program: as `quantisation.quantise` or a delegate gives it.
        clips: what it was calibrated on; None if on nothing.
        layers: signal-to-noise ratio of each layer in decibels, by name; empty without clips, or from a delegate.
    """

    program: ExportedProgram
    clips: Videos | None
    layers: dict[str, float]


def quantise(
    program: ExportedProgram, plan: Plan, wanted: Input, tubelet: int, bar: Progress | None, quantizer: Any = None
) -> Quantised:
    """Calibrate, fine-tune where the plan says so, and quantise.

    Args:
        program: of `graph.export`, or of ordinary operations for a delegate's quantiser.
        plan: see `Plan`.
        wanted: what the model takes.
        tubelet: the model's tubelet size.
        bar: makes progress bars, as `tqdm.tqdm` does; None shows nothing.
        quantizer: the delegate's; None lets the plan's recipe quantise, or, in a precision that is the delegate's own,
            nothing: then the delegate quantises when it lowers.

    Raises:
        ClipSetError: there are too few clips.
        MissingDependencyError: torchao, or the delegate's toolchain, is not installed.
    """
    import torch

    from vmp_edge.calibration import finetuning, quantisation

    from . import graph

    videos = _calibration_clips(plan, wanted, bar)
    tensors = [graph.fold_frames(torch.from_numpy(video[None]), tubelet) for video in videos.videos] if videos else []
    if plan.recipe.name in CALIBRATED and quantizer is None:
        return Quantised(program, videos, {})
    tuned = program
    if plan.finetune:
        tuned = finetuning.finetune(program, plan.recipe, tensors, finetuning.Schedule(plan.finetune), bar)
    quantised = quantisation.quantise(tuned, plan.recipe, tensors, bar, quantizer)
    compared = tensors[:SHOWN] if quantizer is None else []  # a delegate may have split layers or put others in
    layers = quantisation.signal_to_noise(program, quantised, compared) if compared else {}
    return Quantised(quantised, videos, layers)


def _calibration_clips(plan: Plan, wanted: Input, bar: Progress | None) -> Videos | None:
    if plan.calibration is not None:
        return load_videos(plan.calibration, wanted, plan.count, progress=bar)
    if not plan.procedural:
        return None
    from vmp_edge.calibration.egomotion.dataset import write_clips

    with tempfile.TemporaryDirectory() as folder:
        return load_videos(write_clips("calibration", plan.count, Path(folder), bar), wanted, plan.count)


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        comparison: of the quantised model with the float one.
        data: where the videos were from.
        labelled: whether their labels are true; if not, they are what the float model recognises.
    """

    comparison: Comparison
    data: str
    labelled: bool

    def to_manifest(self) -> dict[str, Any]:
        """As the manifest's ``accuracy`` has it."""
        ours, theirs = self.comparison.subject, self.comparison.baseline
        top1 = {"top1": round(ours.top1, 4), "float_top1": round(theirs.top1, 4)} if self.labelled else {}
        return {
            "data": self.data,
            "clips": len(ours.entries),
            **top1,
            "agreement": round(self.comparison.agreement, 4),
            "engine": ours.facts["engine"],
        }


def can_measure(plan: Plan, quantised: Quantised) -> bool:
    """Whether there are videos: labelled ones, those that can be drawn, or those of the calibration."""
    return plan.held_out is not None or plan.procedural or quantised.clips is not None


def measure(plan: Plan, quantised: Quantised, subjects: Sequence[Subject], folder: Path, bar: Progress | None) -> Found:
    """Let the quantised model and the float one recognise the same videos.

    Args:
        plan: see `Plan`.
        quantised: see `Quantised`; with `can_measure`.
        subjects: the quantised model and the float one.
        folder: gets procedural clips, if they are drawn.
        bar: makes progress bars, as `tqdm.tqdm` does; None shows nothing.

    Raises:
        BuildError: top-1 falls by more than the plan allows.
        UsageError, ClipSetError, BundleError: as `evaluate`.
    """
    clips = plan.held_out
    if clips is None and plan.procedural:
        from vmp_edge.calibration.egomotion.dataset import write_clips

        clips = write_clips("test", plan.drawn, folder, bar)
    labelled = clips is not None
    if clips is None:
        assert quantised.clips is not None
        clips = _labelled_by(subjects[1], quantised.clips.entries)
    ours, theirs = evaluate(subjects, clips, progress=bar)
    comparison = Comparison(ours, theirs)
    if plan.max_drop is not None and comparison.drop > plan.max_drop + 1e-9:  # points are not exact in binary
        raise BuildError(
            f"top-1 falls by {comparison.drop:.2f} points, from {100 * theirs.top1:.2f}% to {100 * ours.top1:.2f}% of "
            f"{len(ours.entries)} clips, more than --max-drop {plan.max_drop:g} allows; nothing was written"
        )
    return Found(comparison, clips.name, labelled)


def _labelled_by(subject: Subject, entries: Sequence[Entry]) -> ClipSet:
    """The videos with what a model recognises in them for labels."""
    some = [dataclasses.replace(entry, label=subject.labels[0]) for entry in dict.fromkeys(entries)]
    found = evaluate([subject], ClipSet("the clips of the calibration", tuple(some)))[0]
    labels = [subject.labels[i] for i in found.predictions]
    labelled = (dataclasses.replace(entry, label=label) for entry, label in zip(found.entries, labels, strict=True))
    return ClipSet("the clips of the calibration, labelled with what the float model recognises", tuple(labelled))


def facts(plan: Plan, quantised: Quantised, found: Found | None) -> dict[str, Any]:
    """What the manifest's ``accuracy`` says of a quantised build."""
    told: dict[str, Any] = {"measured": found.to_manifest()} if found else {}
    if quantised.clips is not None:
        told["calibration"] = {
            "data": plan.calibration.name if plan.calibration else "procedural clips",
            "clips": len(quantised.clips.entries),
            "left_out": len(quantised.clips.skipped),
            **({"finetuning_steps": plan.finetune} if plan.finetune else {}),
        }
    return told


def make_report(plan: Plan, quantised: Quantised, found: Found, tools: Mapping[str, str]) -> Report:
    """The report of a build."""
    recipe = {
        key: ", ".join(value) if isinstance(value, tuple) else str(value)
        for key, value in dataclasses.asdict(plan.recipe).items()
        if value
    }
    calibrated = facts(plan, quantised, None).get("calibration", {})
    return Report(
        found.comparison.subject,
        found.comparison.baseline,
        data=found.data,
        layers=quantised.layers,
        details={
            **{f"recipe: {key}": value for key, value in recipe.items()},
            **{f"calibration: {key.replace('_', ' ')}": str(value) for key, value in calibrated.items()},
            **tools,
        },
    )


def program_subject(program: ExportedProgram, like: Subject, tubelet: int) -> Subject:
    """An exported program run by PyTorch, for targets that this machine is not."""
    import torch

    from .graph import fold_frames

    module = program.module(check_guards=False)

    def run(video: Video) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits = module(fold_frames(torch.from_numpy(np.ascontiguousarray(video)), tubelet))
        return np.asarray(logits)

    return dataclasses.replace(like, run=run)
