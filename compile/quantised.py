"""The quantised part of a build, in one object: its plan, its clips, its program, and what was measured."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmp_edge.calibration.clipset import ClipSet
from vmp_edge.calibration.decoding import Input, Progress, Sampling, Video, Videos, load_videos
from vmp_edge.calibration.measure import Comparison, Subject, evaluate
from vmp_edge.calibration.report import Report
from vmp_edge.calibration.timing import ROUNDS
from vmp_edge.errors import BuildError
from vmp_edge.names import cleaned
from vmp_edge.progress import part
from vmp_edge.runtimes.folding import fold

from .lowering import Prepared
from .plan import Plan

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from .target import Target

COMPARED = 4  # clips over which the layers' signal-to-noise ratios are taken
SUFFIX = ".report.html"  # of the report beside the bundle
_OWN_CLIPS = "the clips of the calibration, labelled with what the float model recognises"


@dataclass(frozen=True)
class Measured:
    """The result of letting a quantised model and the float model recognise the same videos.

    Attributes:
        comparison: The quantised model compared with the float model.
        data: The name of the clip set.
    """

    comparison: Comparison
    data: str

    def to_manifest(self) -> dict[str, Any]:
        """Return the ``measured`` entry of the manifest's ``accuracy``."""
        quantised, reference = self.comparison.subject, self.comparison.baseline
        top1 = {"top1": round(quantised.top1, 4), "float_top1": round(reference.top1, 4)} if quantised.labelled else {}
        return {
            "data": self.data,
            "clips": len(quantised.entries),
            **top1,
            "agreement": round(self.comparison.agreement, 4),
            "engine": quantised.facts["engine"],
        }


@dataclass(frozen=True)
class Quantised:
    """A quantised program with the plan and the clips that it comes from.

    Attributes:
        plan: The plan.
        program: The quantised program; `Prepared` if it is a delegate's.
        by_lowering: Whether `program` is not quantised yet, because the delegate quantises it while it lowers.
        clips: The clips that it was calibrated on; None if on none.
        layers: Signal-to-noise ratio of each layer in decibels, by name; empty without clips, or for a delegate.
        measured: How it recognises; None before `measure`, or if nothing could be measured.
    """

    plan: Plan
    program: ExportedProgram | Prepared
    by_lowering: bool
    clips: Videos | None
    layers: dict[str, float]
    measured: Measured | None = None

    @property
    def videos(self) -> Sequence[Video]:
        """The calibration clips, float32 (3, T, S, S) each."""
        return () if self.clips is None else list(self.clips.videos)

    def folded(self, tubelet: int) -> list[Video]:
        """Return the calibration clips as a program takes them, float32 (T / tubelet, tubelet * 3, S, S) each."""
        return [fold(clip[None], tubelet)[0] for clip in self.videos]

    @property
    def can_measure(self) -> bool:
        """True if there are videos: labelled ones, ones that can be drawn, or those of the calibration."""
        return self.plan.held_out is not None or self.plan.procedural or self.clips is not None

    def measure(self, quantised: Subject, reference: Subject, folder: Path, progress: Progress | None) -> Quantised:
        """Let the quantised model and the float one recognise the same videos, sampled as in training.

        Args:
            quantised: The quantised model.
            reference: The float model.
            folder: Gets procedural clips, if they are drawn.
            progress: Makes progress bars, as `tqdm.tqdm` does; None shows nothing.

        Returns:
            The same with `measured`.

        Raises:
            BuildError: Top-1 falls by more than the plan allows.
            UsageError, ClipSetError, BundleError: As `evaluate`.
        """
        clips = self.plan.held_out
        if clips is None and self.plan.procedural:
            from vmp_edge.calibration.egomotion.dataset import write_clips

            clips = write_clips("test", self.plan.precision.drawn_clips, folder, progress)
        if clips is None:
            assert self.clips is not None
            entries = dict.fromkeys(dataclasses.replace(entry, label=None) for entry in self.clips.entries)
            clips = ClipSet(_OWN_CLIPS, tuple(entries))
        comparison = Comparison(
            *evaluate([quantised, reference], clips, Sampling("trained"), progress=progress, rounds=ROUNDS)
        )
        self._check_drop(comparison)
        return dataclasses.replace(self, measured=Measured(comparison, cleaned(clips.name)))

    def _check_drop(self, comparison: Comparison) -> None:
        allowed = self.plan.max_drop
        if allowed is not None and comparison.drop > allowed + 1e-9:  # points are not exact in binary
            quantised, reference = comparison.subject, comparison.baseline
            raise BuildError(
                f"top-1 falls by {comparison.drop:.2f} points, from {100 * reference.top1:.2f}% to "
                f"{100 * quantised.top1:.2f}% of {len(quantised.entries)} clips, more than --max-drop {allowed:g} "
                "allows; nothing was written"
            )

    def to_manifest(self) -> dict[str, Any]:
        """Return what the manifest's ``accuracy`` says about a quantised build."""
        entries: dict[str, Any] = {"measured": self.measured.to_manifest()} if self.measured else {}
        if self.clips is not None:
            entries["calibration"] = self._calibration(self.clips)
        return entries

    def _calibration(self, clips: Videos) -> dict[str, Any]:
        return {
            "data": cleaned(self.plan.calibration.name) if self.plan.calibration else "procedural clips",
            "clips": len(clips.entries),
            "left_out": len(clips.skipped),
            **({"finetuning_steps": self.plan.finetune} if self.plan.finetune else {}),
        }

    def report(self, tools: Mapping[str, str]) -> Report | None:
        """Return the report of the build; None if nothing was measured.

        Args:
            tools: Name and version of what made the bundle.
        """
        if self.measured is None:
            return None
        recipe = {
            key.removeprefix("keep_"): ", ".join(value) if isinstance(value, tuple) else str(value)
            for key, value in dataclasses.asdict(self.plan.recipe).items()
            if value
        }
        calibration = {} if self.clips is None else self._calibration(self.clips)
        return Report(
            self.measured.comparison.subject,
            self.measured.comparison.baseline,
            data=self.measured.data,
            layers=self.layers,
            details={
                **{f"recipe: {key}": value for key, value in recipe.items()},
                **{f"calibration: {key.replace('_', ' ')}": str(value) for key, value in calibration.items()},
                **tools,
            },
        )


def quantise(
    program: ExportedProgram, plan: Plan, target: Target, model_input: Input, tubelet: int, progress: Progress | None
) -> Quantised:
    """Calibrate, fine-tune where the plan says so, and quantise.

    Args:
        program: A program of `graph.export`.
        plan: The plan.
        target: The target, whose delegate quantises in a precision that is the delegate's own.
        model_input: What the model takes of a video.
        tubelet: The model's tubelet size.
        progress: Makes progress bars, as `tqdm.tqdm` does; None shows nothing.

    Raises:
        ClipSetError: There are too few clips.
        MissingDependencyError: torchao, or the delegate's toolchain, is not installed.
    """
    import torch

    from . import graph

    clips = _calibration_clips(plan, model_input, progress)
    videos = clips.videos if clips else ()
    tensors = [graph.fold_frames(torch.from_numpy(video[None]), tubelet) for video in videos]
    if plan.precision.by_delegate:
        return _by_delegate(program, plan, target, clips, tensors, progress)
    from vmp_edge.calibration import finetuning, quantisation

    tuned = program
    if plan.finetune:
        tuned = finetuning.finetune(program, plan.recipe, tensors, finetuning.Schedule(plan.finetune), progress)
    quantised = quantisation.quantise(tuned, plan.recipe, tensors, progress)
    with part("compare the layers"):
        layers = quantisation.signal_to_noise(program, quantised, tensors[:COMPARED]) if tensors else {}
    return Quantised(plan, quantised, False, clips, layers)


def _by_delegate(
    program: ExportedProgram,
    plan: Plan,
    target: Target,
    clips: Videos | None,
    tensors: Sequence[Any],
    progress: Progress | None,
) -> Quantised:
    """Prepare a program for the target's delegate and let the delegate's quantiser choose the ranges.

    The layers are not compared: a delegate may split them or put others in.
    """
    from vmp_edge.calibration import quantisation

    from .lowerings import delegates

    quantizer = delegates.quantiser(target, plan.recipe)
    with part("prepare the program for the delegate"):
        prepared = delegates.prepare(program, target, plan.precision.name)
    if quantizer is None:
        return Quantised(plan, prepared, True, clips, {})
    quantised = quantisation.quantise(prepared.program, plan.recipe, tensors, progress, quantizer)
    return Quantised(plan, Prepared(quantised), False, clips, {})


def _calibration_clips(plan: Plan, model_input: Input, progress: Progress | None) -> Videos | None:
    if plan.calibration is not None:
        return load_videos(plan.calibration, model_input, plan.count, progress=progress)
    if not plan.procedural:
        return None
    from vmp_edge.calibration.egomotion.dataset import write_clips

    with tempfile.TemporaryDirectory() as folder:
        return load_videos(write_clips("calibration", plan.count, Path(folder), progress), model_input, plan.count)
