"""From a model to a bundle that was run and compared with it, or to nothing at all."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmp_edge import __version__, engines
from vmp_edge.bundle import Bundle, staged_bundle
from vmp_edge.compile import lowering, parity, target
from vmp_edge.compile.lowering import Lowered, Source
from vmp_edge.compile.target import Target
from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.manifest import Manifest, host_machine
from vmp_edge.preprocessing import Preprocessing

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba
    from vmp_edge.models.zoo import ZooModel

DEFAULT_MODEL = "egomotion-nano"
STAGES = 4


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
        jetpack: of a Jetson target, NVIDIA's system on the device; None takes what the compiler's code needs.
        threads: that the bundle uses unless its user says otherwise; None leaves it to the engine.
        tune: time the engine's variants on this machine first, and keep the best in the target's tuning log.
        tuning_log: that log, instead of the target's own.
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
    jetpack: str | None = None
    threads: int | None = None
    tune: bool = False
    tuning_log: Path | None = None


@dataclass(frozen=True)
class Described:
    """A source model with what its manifest says of it."""

    name: str
    module: VideoMamba
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None = None
    accuracy: dict[str, Any] = dataclasses.field(default_factory=dict)


@contextmanager
def stage(number: int, what: str) -> Iterator[None]:
    """Say on standard error what is being done, and how long it took."""
    print(f"[{number}/{STAGES}] {what} ...", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        print(" failed", file=sys.stderr, flush=True)
        raise
    print(f" {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def build(request: Request) -> Bundle:
    """Build a bundle.

    Raises:
        UsageError: the request names something unknown or impossible.
        MissingDependencyError: an extra or a tool is not installed.
        CheckpointError: the checkpoint cannot be loaded.
        BuildError: the bundle differs from the source model by more than its precision allows, or cannot be written;
            nothing is left behind.
    """
    kind = target.choose(target.load(request.target), request.device, request.jetpack)
    engine, precision = request.engine or kind.engine, request.precision or kind.precisions[0]
    target.check_choice(kind, engine, precision)
    kind = target.for_precision(kind, precision)
    if request.threads is not None and request.threads < 1:
        raise UsageError(f"--threads is {request.threads}; it must be at least 1")
    if (request.tune or request.tuning_log) and engine != "tvm":
        raise UsageError(f"--tune and --tuning-log are for the engine tvm; {engine} has nothing to tune")
    kind = dataclasses.replace(kind, tuning=request.tuning_log)
    output = request.output or Path("build") / kind.name
    with staged_bundle(output) as staging:
        with stage(1, "load the model"):
            source = load_source(request)
            from vmp_edge.compile import graph  # which needs PyTorch

            program = graph.export(source.module)
        options = source.module.options
        if request.tune:
            from vmp_edge.compile import tvm

            tvm.tune(program, kind)
        with stage(2, f"lower {source.name} for {engine}"):
            lowered = lowering.find(engine)(Source(source.module, program), staging, kind, precision)
        manifest = Manifest(
            name=source.name,
            model=dataclasses.asdict(options),
            target=kind.name,
            engine=engine,
            precision=precision,
            frames=options.num_frames,
            preprocessing=source.preprocessing,
            labels=source.labels,
            program=lowered.program,
            machine=host_machine() if kind.machine == "host" else kind.machine,
            tools={"vmp-edge": __version__, **lowered.tools},
            accuracy=source.accuracy,
            frame_rate=source.frame_rate,
            cpu_features=lowered.cpu_features,
            libraries=lowered.libraries,
            gpu=lowered.gpu,
            threads=request.threads,
        )
        with stage(3, "run the bundle and compare it with the source model"):
            measured = compare(staging.seal(manifest), kind, lowered, source.module, request.threads)
        with stage(4, f"write {output}"):
            staging.seal(dataclasses.replace(manifest, parity=measured))
    return Bundle.open(output, any_machine=True)


def compare(bundle: Bundle, kind: Target, lowered: Lowered, module: VideoMamba, threads: int | None) -> dict[str, Any]:
    """The manifest's ``parity`` entry: measured here, or under an emulator, or the reason why it was not.

    Raises:
        BuildError: the bundle differs too much from its source model.
    """
    if target.runs_here(kind):
        return parity.measure(bundle, engines.create(bundle, threads), module)
    try:
        if lowered.emulate is None:
            raise MissingDependencyError(f"this machine cannot run {kind.name}")
        emulated = lowered.emulate(bundle)
    except MissingDependencyError as error:
        return {"not_run": f"{error}"}
    # one clip of each kind: an emulator takes some thirty times as long
    return {**parity.measure(bundle, emulated, module, clips=1), "emulator": emulated.emulator}


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
