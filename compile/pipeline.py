"""The steps of a build, in their order: from a checked request to a bundle that was run and compared, or to nothing."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmp_edge import __version__, engines
from vmp_edge.bundle.manifest import VARIANTS_FOLDER, Manifest
from vmp_edge.bundle.reading import Bundle, read_manifest
from vmp_edge.bundle.writing import Staging, staged_bundle
from vmp_edge.calibration.decoding import Progress, Video
from vmp_edge.calibration.measure import Subject, check_labels
from vmp_edge.calibration.report import Report
from vmp_edge.errors import MissingDependencyError, UsageError, VmpError
from vmp_edge.machine import host_machine
from vmp_edge.models.stream_state import program_states
from vmp_edge.progress import Step, note, part

from . import causal, lowering, needs, notes, parity, quantised, source, subjects, variants
from . import precision as precisions
from .lowering import Exported, Lowered, Prepared
from .precision import Precision
from .quantised import Quantised
from .request import Order, Request
from .source import DEFAULT_MODEL, SourceModel
from .variants import Variant

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["DEFAULT_MODEL", "Request", "Stages", "build"]


class Stages:
    """Report on standard error what is being done, and how long it took.

    Args:
        total: The number of stages.
    """

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Run one stage.

        Args:
            what: The stage's name.
        """
        self.number += 1
        with Step(f"[{self.number}/{self.total}] {what}"):
            yield


def build(request: Request, progress: Progress | None = None, stages: type[Stages] = Stages) -> Bundle:
    """Build a bundle. A quantised bundle that was measured on clips gets a report beside it.

    Args:
        request: What to build.
        progress: Makes progress bars, as `tqdm.tqdm` does; None shows nothing.
        stages: Reports the stages.

    Raises:
        UsageError: The request names something unknown or impossible.
        MissingDependencyError: An extra or a tool is not installed.
        CheckpointError: The checkpoint cannot be loaded.
        ClipSetError: Clips cannot be read, or are too few.
        BuildError: The bundle differs from the source model by more than its precision allows, loses more accuracy
            than the request allows, or cannot be written. Nothing is left behind.
    """
    order = request.checked()
    for text in notes.of(order):
        note(f"vmp-edge: {text}")
    with tempfile.TemporaryDirectory() as scratch:
        with staged_bundle(order.output) as staging:
            # Which variants are cheaper shows only on the model: it is loaded ahead of the stages.
            model = _source_model(order) if order.variants else None
            cheaper = variants.cheaper(order.variants, model.module.options) if model is not None else []
            run = Build(order, order.output, staging, Path(scratch), progress, stages, model)
            report = run.run()
            if model is not None and cheaper:
                _add_variants(run, model, cheaper)
        if report is not None:
            _write_report(report, order.output)
    return Bundle.open(order.output, any_machine=True)


@dataclass(frozen=True)
class Build:
    """One build, in its folder.

    Attributes:
        order: What to build.
        output: Where the bundle will be.
        staging: The bundle that is being written.
        scratch: A folder for files that are not kept.
        progress: Makes progress bars.
        stages: Reports the stages.
        model: The source model; None loads what was ordered.
    """

    order: Order
    output: Path
    staging: Staging
    scratch: Path
    progress: Progress | None
    stages: type[Stages]
    model: SourceModel | None = None

    def run(self) -> Report | None:
        """Run all steps; returns the report if the build was a quantised one and was measured."""
        plan, precision = self.order.plan, self.order.precision
        stage = self.stages(4 if plan is None else 6)
        work: Quantised | None = None
        with stage("load and export the model"):
            model, exported = self._load()
        if self.order.request.tune and self.order.lowering.tune is not None:
            with Step("tune the kernels"):
                self.order.lowering.tune(exported, self.order.target)
        if plan is not None:
            with stage(f"quantise by the recipe {plan.recipe.name}"):
                tubelet, model_input = model.module.options.tubelet_size, subjects.input_of(model)
                work = quantised.quantise(exported, plan, self.order.target, model_input, tubelet, self.progress)
        with stage(f"lower {model.name} for {self.order.engine.name}"):
            lowered = self._lower(model, exported, work)
        manifest = self._manifest(model, lowered, precision)
        with stage("run the bundle and compare it with the source model"):
            bundle = self.staging.seal(manifest)
            manifest = dataclasses.replace(manifest, parity=self._compare(bundle, lowered, model, work))
        if work is not None:
            with stage("recognise clips beside the float model"):
                work = self._measure(work, model, exported, bundle, lowered)
            measured = {**({"float": model.accuracy} if model.accuracy else {}), **work.to_manifest()}
            manifest = dataclasses.replace(manifest, accuracy=measured)
        with stage(f"write {self.output}"):
            self.staging.seal(manifest)
        return work.report(manifest.tools) if work is not None else None

    def _load(self) -> tuple[SourceModel, ExportedProgram]:
        """The source model and its exported program."""
        order = self.order
        model = self.model or _source_model(order)
        tubelet = model.module.options.tubelet_size
        if order.request.per_frame and order.precision.is_quantised and tubelet != 1:
            raise UsageError(
                f"--per-frame: {model.name} embeds {tubelet} frames at once, which {order.precision.name} cannot part: "
                "build without it, or in fp32"
            )
        lowering.check_stem(model.module.options, model.name, order.target, order.engine.name)
        if order.plan is not None and order.plan.held_out is not None:
            check_labels([subjects.of_source(model, order.target.name)], order.plan.held_out)
        if not model.labels:
            self._check_backbone(model)
        weights = sum(parameter.numel() for parameter in model.module.parameters())
        needs.require_space(self.output, weights, order.precision.name)
        from . import graph  # which needs PyTorch

        with part("export"):
            return model, graph.export(model.module, order.request.features)

    def _check_backbone(self, model: SourceModel) -> None:
        """Check that nothing is asked of a model without classes that needs some."""
        request = self.order.request
        flags = {
            "--evaluate": request.evaluate is not None,
            "--max-drop": request.max_drop is not None,
            "--variants": bool(request.variants),
        }
        if given := [flag for flag, is_given in flags.items() if is_given]:
            raise UsageError(f"{', '.join(given)}: {model.name} has no classes, so that no accuracy can be measured")

    def _lower(self, model: SourceModel, exported: ExportedProgram, work: Quantised | None) -> Lowered:
        """Lower the program, or the quantised one, into the bundle."""
        program = exported if work is None else work.program
        clips = [] if work is None else work.folded(model.module.options.tubelet_size)
        return self._lower_into(self.staging, model, program, self.order.precision, clips)

    def _lower_into(
        self,
        staging: Staging,
        model: SourceModel,
        program: ExportedProgram | Prepared,
        precision: Precision,
        clips: Sequence[Video] = (),
    ) -> Lowered:
        embedding = None
        if self.order.request.per_frame:
            from . import graph

            assert not isinstance(program, Prepared)  # a request for a delegate's target and --per-frame is refused
            embedding, program = graph.split(program, model.module.options.tubelet_size)
        exported = Exported(model.module, program, embedding, clips)
        return self.order.lowering.lower(exported, staging, self.order.target, precision.name)

    def _manifest(self, model: SourceModel, lowered: Lowered, precision: Precision) -> Manifest:
        """The manifest of a lowered model before anything was measured."""
        order, options = self.order, model.module.options
        return Manifest(
            name=model.name,
            model=dataclasses.asdict(options),
            target=order.target.name,
            engine=order.engine.name,
            precision=precision.name,
            frames=options.num_frames,
            preprocessing=model.preprocessing,
            labels=model.labels,
            program=lowered.program,
            machine=host_machine() if order.target.machine == "host" else order.target.machine,
            tools={"vmp-edge": __version__, **lowered.tools},
            accuracy=model.accuracy,
            frame_rate=model.frame_rate,
            span=model.span,
            cpu_features=lowered.cpu_features,
            libraries=lowered.libraries,
            gpu=lowered.gpu,
            soc=order.target.soc,
            threads=order.request.threads,
            family=model.family,
            features=options.features if order.request.features else 0,
            embedding=lowered.embedding,
            states=program_states(options) if options.causal else {},
        )

    def _compare(self, bundle: Bundle, lowered: Lowered, model: SourceModel, work: Quantised | None) -> dict[str, Any]:
        """The manifest's ``parity`` entry: measured here, or under an emulator, or the reason why it was not measured.

        Raises:
            BuildError: The bundle differs too much from its source model.
        """
        request = self.order.request
        if request.parity_clips == 0:
            return {"not_run": "left out by --parity-clips 0"}
        videos = () if work is None else work.videos
        if self.order.runs_here:
            engine = engines.create(bundle, request.threads)
            return parity.measure(bundle, engine, model.module, request.parity_clips or parity.CLIPS, videos)
        try:
            if lowered.emulate is None:
                raise MissingDependencyError(f"this machine cannot run {self.order.target.name}")
            emulated = lowered.emulate(bundle)
        except MissingDependencyError as error:
            return {"not_run": f"{error}"}
        clips = request.parity_clips or 1  # an emulator takes some thirty times as long
        return {**parity.measure(bundle, emulated, model.module, clips, videos), "emulator": emulated.emulator}

    def _measure(
        self, work: Quantised, model: SourceModel, exported: ExportedProgram, bundle: Bundle, lowered: Lowered
    ) -> Quantised:
        """Measure the quantised model beside the float one, if there are clips and something that can run it."""
        if not model.labels or not work.can_measure or (work.by_lowering and self.order.request.parity_clips == 0):
            return work
        with ExitStack() as stack:
            if self.order.runs_here:
                pair = self._bundles(model, exported, bundle, stack)
            else:
                pair = self._stand_ins(work, model, bundle, lowered)
            return work.measure(*pair, self.scratch, self.progress)

    def _bundles(
        self, model: SourceModel, exported: ExportedProgram, bundle: Bundle, stack: ExitStack
    ) -> tuple[Subject, Subject]:
        """The bundle and one in fp32 of the same engine."""
        fp32 = precisions.find("fp32")
        with staged_bundle(self.scratch / fp32.name) as staging, part("lower the float model"):
            lowered = self._lower_into(staging, model, exported, fp32)
            staging.seal(self._manifest(model, lowered, fp32))
        reference, threads = Bundle.open(self.scratch / fp32.name), self.order.request.threads
        return (
            subjects.of_bundle(bundle, str(self.output), threads, stack),
            subjects.of_bundle(reference, f"{model.name}, float", threads, stack),
        )

    def _stand_ins(
        self, work: Quantised, model: SourceModel, bundle: Bundle, lowered: Lowered
    ) -> tuple[Subject, Subject]:
        """The quantised program and the source model in PyTorch, for a target that this machine is not.

        Where a delegate computes in whole numbers, PyTorch's rounding is not the device's: an emulator runs the bundle.
        """
        reference = subjects.of_source(model, self.order.target.name)
        facts = {**reference.facts, "precision": self.order.precision.name}
        like = dataclasses.replace(reference, name=str(self.output), facts=facts)
        if self.order.precision.by_delegate and lowered.emulate is not None and self.order.request.parity_clips != 0:
            with suppress(MissingDependencyError):
                return subjects.of_emulator(lowered.emulate(bundle), like), reference
        program = work.program.program if isinstance(work.program, Prepared) else work.program
        return subjects.of_program(program, like, model.module.options.tubelet_size), reference


def _source_model(order: Order) -> SourceModel:
    """Load the source model, and check that it can be built as it is ordered.

    Raises:
        UsageError: It is a causal model, and the order asks for what there is not for causal models.
    """
    model = source.load(order.choice)
    if model.module.options.causal:
        causal.check(order, model.name)
    return model


def _add_variants(run: Build, model: SourceModel, cheaper: Sequence[Variant]) -> None:
    """Build cheaper variants of a model into its bundle, and let all recognise the same clips, if there are any.

    Args:
        run: The model's own build, which is sealed.
        model: The model.
        cheaper: The model's variants, from the dearest to the cheapest.
    """
    order, folder = run.order, run.staging.path / VARIANTS_FOLDER
    for variant in cheaper:
        note(f"variant {variant.name}:")
        with staged_bundle(folder / variant.name) as staging:
            output = run.output / VARIANTS_FOLDER / variant.name
            dataclasses.replace(run, output=output, staging=staging, model=model.cut(variant)).run()
    clips = order.labelled
    measured: dict[str, dict[str, Any]] = {variant.name: {} for variant in cheaper}
    if order.runs_here and (clips is not None or order.choice.is_procedural):
        if clips is None:
            from vmp_edge.calibration.egomotion.dataset import write_clips

            clips = write_clips("test", variants.CLIPS, run.scratch, run.progress)
        places = {variant.name: folder / variant.name for variant in cheaper}
        measured = variants.measure(run.staging.path, places, clips, order.request.threads, run.progress)
    options = model.module.options
    entries = {variant.name: {**variant.to_manifest(options), **measured[variant.name]} for variant in cheaper}
    run.staging.seal(dataclasses.replace(read_manifest(run.staging.path), variants=entries))


def _write_report(report: Report, output: Path) -> None:
    """Write a build's report beside its bundle, or say why there is none: the bundle is there either way."""
    from vmp_edge.calibration.report import write

    path = output.with_name(output.name + quantised.SUFFIX)
    try:
        write(report, path)
    except VmpError as error:
        print(f"vmp-edge: no report: {error}", file=sys.stderr)
    else:
        print(f"report: {path}", file=sys.stderr)
