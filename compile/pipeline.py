"""From a model to a bundle that was run and compared with it, or to nothing at all."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmp_edge import __version__, engines
from vmp_edge.bundle.manifest import VARIANTS_FOLDER, Manifest
from vmp_edge.bundle.reading import Bundle, read_manifest
from vmp_edge.bundle.writing import Staging, staged_bundle
from vmp_edge.calibration import clipset
from vmp_edge.calibration.decoding import Input, Progress, Video
from vmp_edge.calibration.measure import Subject, check_labels
from vmp_edge.calibration.report import Report
from vmp_edge.errors import MissingDependencyError, UsageError, VmpError
from vmp_edge.machine import host_machine
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import Recognizer
from vmp_edge.runtimes.folding import fold

from . import lowering, parity, quantised, target, variants
from .lowering import Lowered, Source
from .quantised import Plan, Quantised
from .target import Target
from .variants import Variant

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from vmp_edge.calibration.quantisation import Recipe
    from vmp_edge.models import VideoMamba
    from vmp_edge.models.zoo import ZooModel

DEFAULT_MODEL = "egomotion-nano"


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        target: a name in ``targets/``.
        model: a preset; None means `DEFAULT_MODEL` where there is no checkpoint either.
        checkpoint: a published ``.pth`` file instead of a preset.
        family: of the checkpoint.
        frames: of a clip; None keeps the model's.
        image_size: pixels of a frame's side; None keeps the model's.
        labels: a text file with a label a line; None numbers the classes, or takes the model's own.
        output: the bundle's folder; None is ``build/<target>``.
        engine: None takes the target's.
        precision: None takes the target's first.
        device: of a target with GPUs, the one that kernels are tuned for; None takes the target's first.
        soc: of a Qualcomm target, the chip that a bundle is compiled for; None takes the target's first.
        jetpack: of a Jetson target, NVIDIA's system on the device; None takes what the compiler's code needs.
        threads: that the bundle uses unless its user says otherwise; None leaves it to the engine.
        tune: time the engine's variants on this machine first, and keep the best in the target's tuning log.
        tuning_log: that log, instead of the target's own.
        calibrate: a clip set to calibrate an int8 bundle on; None draws procedural clips for egomotion-nano.
        calibration_clips: how many of its clips; None takes `quantised.CLIPS`.
        finetune: steps in which an int8 bundle's weights learn from the float model on those clips; None for none.
        evaluate: a labelled clip set on which an int8 bundle is measured beside the float model; None as above.
        max_drop: points of top-1 (0 to 100) that an int8 bundle may lose there.
        parity_clips: of each kind, on which a bundle is compared with its source model; None takes `parity.CLIPS`, or
            1 under an emulator; with 0 it is not compared, and no emulator runs it.
        features: the program gives what the head takes, too, for `vmp-edge enroll`.
        variants: cheaper variants of the model to build into the bundle, as for `variants.parse`.
        per_frame: embed each frame of a stream once: a program for the patch embedding, and one for the rest.
    """

    target: str
    model: str | None = None
    checkpoint: Path | None = None
    family: str = "videomambapro"
    frames: int | None = None
    image_size: int | None = None
    labels: Path | None = None
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


@dataclass(frozen=True)
class Described:
    """A source model with what its manifest says of it."""

    name: str
    module: VideoMamba
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None = None
    accuracy: dict[str, Any] = dataclasses.field(default_factory=dict)


class Stages:
    """Says on standard error what is being done, and how long it took.

    Args:
        total: how many there will be.
    """

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    @contextmanager
    def __call__(self, what: str, bars: bool = False) -> Iterator[None]:
        """One stage; with progress bars of its own, it ends on a line of its own."""
        self.number += 1
        told = f"[{self.number}/{self.total}] {what}"
        print(f"{told} ...", end="\n" if bars else "", file=sys.stderr, flush=True)
        start, begin = time.perf_counter(), told if bars else ""
        try:
            yield
        except BaseException:
            print(f"{begin} failed", file=sys.stderr, flush=True)
            raise
        print(f"{begin} {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def build(request: Request, progress: Progress | None = None, stages: type[Stages] = Stages) -> Bundle:
    """Build a bundle; beside a quantised one that was measured on clips, write a report.

    Args:
        request: what to build.
        progress: makes progress bars, as `tqdm.tqdm` does; None shows nothing.
        stages: tells of the stages.

    Raises:
        UsageError: the request names something unknown or impossible.
        MissingDependencyError: an extra or a tool is not installed.
        CheckpointError: the checkpoint cannot be loaded.
        ClipSetError: clips cannot be read, or are too few.
        BuildError: the bundle differs from the source model by more than its precision allows, recognises less than
            was asked, or cannot be written; nothing is left behind.
    """
    kind = target.choose(target.load(request.target), request.device, request.jetpack, request.soc)
    engine, precision = request.engine or kind.engine, request.precision or kind.precisions[0]
    target.check_choice(kind, engine, precision)
    kind = target.for_precision(kind, precision)
    if request.threads is not None and request.threads < 1:
        raise UsageError(f"--threads is {request.threads}; it must be at least 1")
    if request.parity_clips is not None and request.parity_clips < 0:
        raise UsageError(f"--parity-clips is {request.parity_clips}; it must be at least 1, or 0 to leave it out")
    if request.parity_clips == 0 and request.max_drop is not None and precision in lowering.CALIBRATED:
        raise UsageError(f"--max-drop of {precision} is measured by an emulator, which --parity-clips 0 leaves out")
    if request.features and request.finetune:
        raise UsageError("--finetune would take the features for classes: build with one of --features and --finetune")
    if (request.tune or request.tuning_log) and engine != "tvm":
        raise UsageError(f"--tune and --tuning-log are for the engine tvm; {engine} has nothing to tune")
    if request.per_frame:
        check_per_frame(kind, engine)
    kind = dataclasses.replace(kind, tuning=request.tuning_log)
    procedural = request.checkpoint is None and (request.model or DEFAULT_MODEL) == DEFAULT_MODEL
    options = {name: getattr(request, name) for name in quantised.OPTIONS}
    if request.variants and precision not in (*lowering.QUANTISED, *lowering.CALIBRATED):
        options["evaluate"] = None  # the variants' alone
    plan = quantised.plan(precision, procedural, options)
    asked = variants.parse(request.variants or ())
    output = request.output or Path("build") / kind.name
    with tempfile.TemporaryDirectory() as scratch:
        with staged_bundle(output) as staging:
            source = load_source(request) if request.variants else None
            chosen = variants.cheaper(asked, source.module.options) if source is not None else []
            one = Build(request, kind, engine, precision, output, staging, Path(scratch), progress, source, stages)
            report = one.make(plan)
            if source is not None and chosen:
                add_variants(one, source, chosen, plan, procedural)
        if report is not None:
            write_report(report, output)
    return Bundle.open(output, any_machine=True)


def add_variants(one: Build, source: Described, chosen: Sequence[Variant], plan: Plan | None, procedural: bool) -> None:
    """Build cheaper variants of a model into its bundle, and let all recognise the same clips, if there are any.

    Args:
        one: the model's own build, which is sealed.
        source: the model.
        chosen: its variants, from the dearest to the cheapest.
        plan: of a quantised build.
        procedural: whether clips can be drawn for the model.
    """
    folder = one.staging.path / VARIANTS_FOLDER
    for variant in chosen:
        print(f"variant {variant.name}:", file=sys.stderr)
        with staged_bundle(folder / variant.name) as staging:
            output = one.output / VARIANTS_FOLDER / variant.name
            dataclasses.replace(one, output=output, staging=staging, source=cut(source, variant)).make(plan)
    facts: dict[str, dict[str, Any]] = {variant.name: {} for variant in chosen}
    clips = None if one.request.evaluate is None else clipset.read(one.request.evaluate)
    if target.runs_here(one.kind) and (clips is not None or procedural):
        if clips is None:
            from vmp_edge.calibration.egomotion.dataset import write_clips

            clips = write_clips("test", variants.CLIPS, one.scratch, one.progress)
        places = {variant.name: folder / variant.name for variant in chosen}
        facts = variants.measure(one.staging.path, places, clips, one.request.threads, one.progress)
    told = {variant.name: {**variant.to_manifest(source.module.options), **facts[variant.name]} for variant in chosen}
    manifest = read_manifest(one.staging.path)
    one.staging.seal(dataclasses.replace(manifest, variants=told))


def cut(source: Described, variant: Variant) -> Described:
    """A variant of a model, with what its manifest says of it; fewer frames span the same time."""
    module = variants.cut(source.module, variant)
    rate = source.frame_rate
    if rate is not None:
        rate *= module.options.num_frames / source.module.options.num_frames
    preprocessing = dataclasses.replace(source.preprocessing, image_size=module.options.image_size)
    name = f"{source.name}-{variant.name}"
    return Described(name, module, source.labels, preprocessing, rate)


def check_per_frame(target: Target, engine: str) -> None:
    """Whether the patch embedding can be a program of its own.

    Raises:
        UsageError: it cannot.
    """
    if engine not in lowering.PER_FRAME:
        raise UsageError(f"--per-frame is for the engines {', '.join(lowering.PER_FRAME)}, not for {engine}")
    if target.delegate is not None or target.gpu is not None:
        raise UsageError(f"--per-frame is for CPUs, and {target.name} is none: build without it")


def write_report(report: Report, output: Path) -> None:
    """Write a build's report beside its bundle, or say why there is none: the bundle is there either way."""
    from vmp_edge.calibration.report import write

    path = output.with_name(output.name + quantised.SUFFIX)
    try:
        write(report, path)
    except VmpError as error:
        print(f"vmp-edge: no report: {error}", file=sys.stderr)
    else:
        print(f"report: {path}", file=sys.stderr)


@dataclass(frozen=True)
class Build:
    """One build, in its folder.

    Attributes:
        request: what was asked.
        kind: the target.
        engine: the engine.
        precision: the precision.
        output: where the bundle will be.
        staging: where it is made.
        scratch: a folder for what will not be kept.
        progress: makes progress bars.
        source: the source model; None loads what was asked for.
        stages: tells of the stages.
    """

    request: Request
    kind: Target
    engine: str
    precision: str
    output: Path
    staging: Staging
    scratch: Path
    progress: Progress | None
    source: Described | None = None
    stages: type[Stages] = Stages

    def make(self, plan: Plan | None) -> Report | None:
        """The build that the plan asks for."""
        if plan is not None:
            return self.run_quantised(plan)
        self.run()
        return None

    def run(self) -> None:
        """A build in a precision in which nothing is learnt from clips."""
        stage = self.stages(4)
        with stage("load the model"):
            source, program = self.load()
        if self.request.tune:
            from .lowerings.tvm import lowering as tvm

            tvm.tune(program, self.kind)
        with stage(f"lower {source.name} for {self.engine}"):
            lowered = self.lower(source, program, self.staging, self.precision)
        manifest = self.manifest(source, lowered, self.precision)
        with stage("run the bundle and compare it with the source model"):
            measured = self.compare(self.staging.seal(manifest), lowered, source.module)
        with stage(f"write {self.output}"):
            self.staging.seal(dataclasses.replace(manifest, parity=measured))

    def run_quantised(self, plan: Plan) -> Report | None:
        """A build in int8; gives the report, if there is anything to be told."""
        stage = self.stages(6)
        with stage("load the model"):
            source, program = self.load()
            if plan.held_out is not None:
                check_labels([self.subject_of(source)], plan.held_out)
        options, wanted = source.module.options, self.subject_of(source).input
        with stage(f"quantise by the recipe {plan.recipe.name}", bars=True):
            quantizer = None
            if self.precision in lowering.CALIBRATED:
                program, quantizer = self.ordinary(program, plan.recipe)
            made = quantised.quantise(program, plan, wanted, options.tubelet_size, self.progress, quantizer)
        with stage(f"lower {source.name} for {self.engine}"):
            clips = () if made.clips is None else made.clips.videos
            shown = [fold(clip[None], options.tubelet_size)[0] for clip in clips]
            lowered = self.lower(source, made.program, self.staging, self.precision, shown)
        manifest = self.manifest(source, lowered, self.precision)
        with stage("run the bundle and compare it with the source model"):
            bundle = self.staging.seal(manifest)
            videos = [] if made.clips is None else list(made.clips.videos)
            measured = self.compare(bundle, lowered, source.module, videos)
        with stage("recognise clips beside the float model", bars=True), ExitStack() as stack:
            found = None
            if quantised.can_measure(plan, made) and self.can_run(quantizer):
                subjects = self.subjects(source, program, made, bundle, lowered, stack)
                found = quantised.measure(plan, made, subjects, self.scratch, self.progress)
        with stage(f"write {self.output}"):
            accuracy = {**({"float": source.accuracy} if source.accuracy else {}), **quantised.facts(plan, made, found)}
            self.staging.seal(dataclasses.replace(manifest, parity=measured, accuracy=accuracy))
        return quantised.make_report(plan, made, found, manifest.tools) if found else None

    def load(self) -> tuple[Described, ExportedProgram]:
        """The source model and its program."""
        source = self.source or load_source(self.request)
        quantised_too = self.precision in (*lowering.QUANTISED, *lowering.CALIBRATED)
        if self.request.per_frame and quantised_too and (tubelet := source.module.options.tubelet_size) != 1:
            raise UsageError(
                f"--per-frame: {source.name} embeds {tubelet} frames at once, which {self.precision} cannot part: "
                "build without it, or in fp32"
            )
        from . import graph  # which needs PyTorch

        return source, graph.export(source.module, self.request.features)

    def can_run(self, quantizer: Any) -> bool:
        """Whether anything runs what was quantised: only an emulator does if a delegate did so as it lowered."""
        by_itself = self.precision in lowering.CALIBRATED and quantizer is None
        return not (by_itself and self.request.parity_clips == 0)

    def ordinary(self, program: ExportedProgram, recipe: Recipe) -> tuple[ExportedProgram, Any]:
        """A program in ordinary operations, and the quantiser of the target's delegate."""
        from .lowerings import delegates  # which needs PyTorch

        quantizer = delegates.quantiser(self.kind, recipe)
        return delegates.ordinary(program, self.kind, self.precision), quantizer

    def lower(
        self,
        source: Described,
        program: ExportedProgram,
        staging: Staging,
        precision: str,
        clips: Sequence[npt.NDArray[np.float32]] = (),
    ) -> Lowered:
        """Lower a program into a folder; `clips` as of `Source`."""
        given = Source(source.module, program, clips=clips)
        if self.request.per_frame:
            from . import graph

            embedding, rest = graph.split(program, source.module.options.tubelet_size)
            given = Source(source.module, rest, embedding)
        return lowering.find(self.engine)(given, staging, self.kind, precision)

    def manifest(self, source: Described, lowered: Lowered, precision: str) -> Manifest:
        """The manifest of what was lowered, before anything was measured."""
        options = source.module.options
        return Manifest(
            name=source.name,
            model=dataclasses.asdict(options),
            target=self.kind.name,
            engine=self.engine,
            precision=precision,
            frames=options.num_frames,
            preprocessing=source.preprocessing,
            labels=source.labels,
            program=lowered.program,
            machine=host_machine() if self.kind.machine == "host" else self.kind.machine,
            tools={"vmp-edge": __version__, **lowered.tools},
            accuracy=source.accuracy,
            frame_rate=source.frame_rate,
            cpu_features=lowered.cpu_features,
            libraries=lowered.libraries,
            gpu=lowered.gpu,
            soc=self.kind.soc,
            threads=self.request.threads,
            features=options.embed_dim if self.request.features else 0,
            embedding=lowered.embedding,
        )

    def compare(
        self, bundle: Bundle, lowered: Lowered, module: VideoMamba, videos: Sequence[Video] = ()
    ) -> dict[str, Any]:
        """The manifest's ``parity`` entry: measured here, or under an emulator, or the reason why it was not.

        Raises:
            BuildError: the bundle differs too much from its source model.
        """
        if self.request.parity_clips == 0:
            return {"not_run": "left out by --parity-clips 0"}
        if target.runs_here(self.kind):
            clips = self.request.parity_clips or parity.CLIPS
            return parity.measure(bundle, engines.create(bundle, self.request.threads), module, clips, videos)
        try:
            if lowered.emulate is None:
                raise MissingDependencyError(f"this machine cannot run {self.kind.name}")
            emulated = lowered.emulate(bundle)
        except MissingDependencyError as error:
            return {"not_run": f"{error}"}
        # one clip of each kind: an emulator takes some thirty times as long
        clips = self.request.parity_clips or 1
        return {**parity.measure(bundle, emulated, module, clips, videos), "emulator": emulated.emulator}

    def subject_of(self, source: Described) -> Subject:
        """The source model for measuring; what runs it is PyTorch."""
        options = source.module.options
        taken = Input(options.num_frames, source.preprocessing, source.frame_rate)

        def run(video: Video) -> npt.NDArray[np.float32]:
            import torch

            with torch.no_grad():
                return np.asarray(source.module(torch.from_numpy(np.ascontiguousarray(video))))

        facts = {"model": source.name, "target": self.kind.name, "engine": "torch", "precision": "fp32"}
        return Subject(f"{source.name}, float", source.labels, taken, run, facts)

    def subjects(
        self,
        source: Described,
        program: ExportedProgram,
        made: Quantised,
        bundle: Bundle,
        lowered: Lowered,
        stack: ExitStack,
    ) -> list[Subject]:
        """The quantised model and the float one: bundles of the same engine, or, for another machine, in PyTorch.

        Where a delegate computes in whole numbers, PyTorch's rounding is not the device's: an emulator runs the bundle.
        """
        floating = self.subject_of(source)
        if not target.runs_here(self.kind):
            facts = {**floating.facts, "precision": self.precision}
            like = dataclasses.replace(floating, name=str(self.output), facts=facts)
            if self.precision in lowering.CALIBRATED and lowered.emulate is not None and self.request.parity_clips != 0:
                with suppress(MissingDependencyError):
                    emulated = lowered.emulate(bundle)
                    told = {**facts, "engine": emulated.emulator}
                    return [dataclasses.replace(like, run=emulated.run, facts=told), floating]
            return [quantised.program_subject(made.program, like, source.module.options.tubelet_size), floating]
        with staged_bundle(self.scratch / "fp32") as staging:
            staging.seal(self.manifest(source, self.lower(source, program, staging, "fp32"), "fp32"))
        bundles = {str(self.output): bundle, floating.name: Bundle.open(self.scratch / "fp32")}
        return [
            dataclasses.replace(
                Subject.of(stack.enter_context(Recognizer(one, engines.create(one, self.request.threads)))), name=name
            )
            for name, one in bundles.items()
        ]


def load_source(request: Request) -> Described:
    """The model that a request names.

    Raises:
        UsageError, MissingDependencyError, CheckpointError: as `build`.
    """
    from vmp_edge import models
    from vmp_edge.models import zoo

    if request.checkpoint is not None:
        if request.model is not None:
            raise UsageError("give --model or --checkpoint, not both")
        module = models.load_checkpoint(request.checkpoint, request.family, request.frames, request.image_size)
        return _published(request.checkpoint.stem, module, request.labels)
    name = request.model or DEFAULT_MODEL
    if name in zoo.names():
        return _own(zoo.load(name), name, request)
    sizes = {"num_frames": request.frames, "image_size": request.image_size}
    given = {key: value for key, value in sizes.items() if value is not None}
    if request.labels is not None:
        given["num_classes"] = len(_read_labels(request.labels))
    return _untrained(name, given, request.labels)


def _published(name: str, module: VideoMamba, labels: Path | None) -> Described:
    options = module.options
    return Described(name, module, _labels(labels, options.num_classes), Preprocessing(options.image_size))


def _own(model: ZooModel, name: str, request: Request) -> Described:
    options = model.module.options
    wanted = (request.frames or options.num_frames, request.image_size or options.image_size)
    if wanted != (options.num_frames, options.image_size):
        raise UsageError(f"{name} takes {options.num_frames} frames of {options.image_size} pixels and nothing else")
    labels = model.labels if request.labels is None else _labels(request.labels, options.num_classes)
    return Described(name, model.module, labels, model.preprocessing, model.frame_rate, model.accuracy)


def _untrained(name: str, given: dict[str, int], labels: Path | None) -> Described:
    import torch

    from vmp_edge import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = models.create(name, **given)
    print(
        f"\nvmp-edge: {name} has no weights here and gets random ones: good for timing, recognises nothing; "
        "give trained ones with --checkpoint",
        file=sys.stderr,
    )
    return _published(name, module, labels)


def _labels(path: Path | None, classes: int) -> tuple[str, ...]:
    if path is None:
        return tuple(f"class-{index}" for index in range(classes))
    labels = _read_labels(path)
    if len(labels) != classes:
        raise UsageError(f"{path}: has {len(labels)} labels, but the model has {classes} classes")
    return labels


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a text file with a label a line ({error})") from error
    if not labels:
        raise UsageError(f"{path}: holds no labels; it should have one a line")
    return labels
