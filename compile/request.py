"""A request for a build, and the order that it becomes once everything about it was checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vmp_edge import engines
from vmp_edge.bundle.manifest import check_threads
from vmp_edge.bundle.writing import check_destination
from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet
from vmp_edge.engines import EngineRecord
from vmp_edge.errors import UsageError

from . import lowering, precision, variants
from . import plan as planning
from . import target as targets
from .lowering import Lowering
from .needs import require_all, require_package
from .plan import Plan, QuantisationOptions
from .precision import Precision
from .preparation import Preparation
from .source import Choice, choose
from .target import Target
from .variants import Variant


@dataclass(frozen=True)
class Request:
    """A request for a build, as the user makes it.

    Attributes:
        target: The name of a target in ``targets/``.
        model: One of our models, a published model or a preset; None means egomotion-nano if there is no checkpoint
            either.
        checkpoint: A checkpoint's file instead, or ``hf://OWNER/NAME/FILE`` for one on the hub.
        checkpoint_key: Which model to take from a checkpoint with several, by its key; None takes the trained weights.
        family: The family of the checkpoint; None finds it out.
        readout: What the checkpoint's head reads, as in `ModelOptions`; None keeps the checkpoint's.
        classes: The number of the checkpoint's first classes to keep; None keeps all, 0 leaves the head out.
        frames: Frames of a clip; None keeps the model's.
        image_size: Pixels of a frame's side; None keeps the model's.
        labels: A text file with one label on each line, or the name of a data set's list; None numbers the classes, or
            takes the labels that the model is known to have.
        span, frame_rate, resize, mean, std: See `Preparation`.
        output: The bundle's folder; None is ``build/<target>``.
        engine: The engine that will execute the bundle; None takes the target's.
        precision: The precision; None takes the target's first.
        device: For a target with GPUs, the one that kernels are tuned for; None takes the target's first.
        soc: For a Qualcomm target, the chip that a bundle is compiled for; None takes the target's first.
        jetpack: For a Jetson target, the JetPack on the device; None accepts any CUDA compiler.
        threads: Threads that the bundle uses unless its user says otherwise; None lets the engine choose.
        tune: Time the engine's kernels on this machine first, and keep the best in the target's tuning log.
        tuning_log: The tuning log to use instead of the target's own.
        calibrate: See `QuantisationOptions`.
        calibration_clips: See `QuantisationOptions`.
        finetune: See `QuantisationOptions`.
        evaluate: See `QuantisationOptions`; a build with variants measures those on the same clips.
        max_drop: See `QuantisationOptions`.
        parity_clips: Number of clips of each kind on which a bundle is compared with its source model. None takes
            `parity.CLIPS`, or 1 under an emulator. With 0 the bundle is not compared, and no emulator runs it.
        features: Whether the program also gives the features that the head takes, for `vmp-edge enroll`. A model
            without a head gives them alone.
        variants: Cheaper variants of the model to build into the bundle, as `variants.parse` reads them.
        per_frame: Whether a stream embeds each frame once: one program for the patch embedding, and one for the rest.
    """

    target: str
    model: str | None = None
    checkpoint: str | Path | None = None
    checkpoint_key: str | None = None
    family: str | None = None
    readout: str | None = None
    classes: int | None = None
    frames: int | None = None
    image_size: int | None = None
    labels: Path | None = None
    span: float | None = None
    frame_rate: float | None = None
    resize: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    output: Path | None = None
    engine: str | None = None
    precision: str | None = None
    device: str | None = None
    soc: str | None = None
    jetpack: str | None = None
    threads: int | None = None
    tune: bool = False
    tuning_log: Path | None = None
    calibrate: Path | None = None
    calibration_clips: int | None = None
    finetune: int | None = None
    evaluate: Path | None = None
    max_drop: float | None = None
    parity_clips: int | None = None
    features: bool = False
    variants: Sequence[str] | None = None
    per_frame: bool = False

    def checked(self) -> Order:
        """Check the whole request before anything is loaded: names, numbers, files, output, libraries, compilers.

        Raises:
            UsageError: The request names something unknown or impossible.
            ClipSetError: A clip set cannot be read.
            BuildError: The output cannot be written.
            MissingDependencyError: A library, an extra or a compiler that the build needs is not installed.
        """
        target = targets.choose(targets.load(self.target), self.device, self.jetpack, self.soc)
        engine_name, precision_name = self.engine or target.engine, self.precision or target.precisions[0]
        targets.check_choice(target, engine_name, precision_name)
        target = dataclasses.replace(targets.for_precision(target, precision_name), tuning=self.tuning_log)
        engine, chosen = engines.record(engine_name), precision.find(precision_name)
        self._check_options(target, engine, chosen)
        choice = self._source()
        output = self.output or Path("build") / target.name
        check_destination(output)
        require_package("torch", "building", "compile")
        plan = planning.plan(chosen, choice.is_procedural, self._quantisation_options(chosen))
        parsed = tuple(variants.parse(self.variants or ()))
        labelled = clipset.read(self.evaluate) if parsed and self.evaluate is not None else None
        choice.check_file()
        engine_lowering = lowering.find(engine.name)
        if (self.tune or self.tuning_log) and engine_lowering.tune is None:
            raise UsageError(f"--tune and --tuning-log are for the engine tvm; {engine.name} has nothing to tune")
        require_all(
            partial(engine_lowering.check, target, chosen.name),
            *([partial(require_package, "torchao", f"quantising to {chosen.name}", "compile")] if plan else []),
        )
        if self.tune or self.tuning_log:
            engine_lowering.check_tuning(target, self.tune)
        return Order(self, target, engine, chosen, engine_lowering, choice, plan, parsed, labelled, output)

    def _check_options(self, target: Target, engine: EngineRecord, chosen: Precision) -> None:
        check_threads(self.threads, "--threads")
        if self.parity_clips is not None and self.parity_clips < 0:
            raise UsageError(f"--parity-clips is {self.parity_clips}; it must be at least 1, or 0 to leave it out")
        if self.parity_clips == 0 and self.max_drop is not None and chosen.by_delegate:
            raise UsageError(
                f"--max-drop of {chosen.name} is measured by an emulator, which --parity-clips 0 leaves out"
            )
        if self.features and self.finetune:
            raise UsageError(
                "--finetune would take the features for classes: build with one of --features and --finetune"
            )
        if self.per_frame:
            _check_per_frame(target, engine)

    def _quantisation_options(self, chosen: Precision) -> QuantisationOptions:
        evaluate = self.evaluate
        if self.variants and not chosen.is_quantised:
            evaluate = None  # the variants alone are measured on it
        return QuantisationOptions(self.calibrate, self.calibration_clips, self.finetune, evaluate, self.max_drop)

    def _source(self) -> Choice:
        return choose(
            self.model,
            self.checkpoint,
            family=self.family,
            frames=self.frames,
            image_size=self.image_size,
            labels=self.labels,
            key=self.checkpoint_key,
            readout=self.readout,
            preparation=Preparation(self.span, self.frame_rate, self.resize, self.mean, self.std),
            classes=self.classes,
            features=self.features,
        )


def _check_per_frame(target: Target, engine: EngineRecord) -> None:
    """Check that the patch embedding can be a program of its own."""
    if not engine.per_frame:
        able = sorted(name for name in engines.available() if engines.record(name).per_frame)
        raise UsageError(f"--per-frame is for the engines {', '.join(able)}, not for {engine.name}")
    if target.delegate is not None or target.gpu is not None:
        raise UsageError(f"--per-frame is for CPUs, and {target.name} is none: build without it")


@dataclass(frozen=True)
class Order:
    """A request that was checked, with everything that it names.

    Attributes:
        request: The request.
        target: The target, with the user's choices and what the precision needs.
        engine: The engine.
        precision: The precision.
        lowering: The lowering to the engine.
        choice: The source model to load.
        plan: How to quantise, and on which clips; None if the precision is not a quantised one.
        variants: The variants that the user asks for.
        labelled: Labelled clips on which the variants are measured; None if none were given.
        output: The bundle's folder.
    """

    request: Request
    target: Target
    engine: EngineRecord
    precision: Precision
    lowering: Lowering
    choice: Choice
    plan: Plan | None
    variants: tuple[Variant, ...]
    labelled: ClipSet | None
    output: Path

    @property
    def runs_here(self) -> bool:
        """True if this machine can run the bundle."""
        return targets.runs_here(self.target)
