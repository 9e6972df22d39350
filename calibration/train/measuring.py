"""Measure what was trained on the clips that were held out: of each clip, and as a stream sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError, CheckpointError
from vmp_edge.models import load_checkpoint
from vmp_edge.models.training_facts import TrainingFacts
from vmp_edge.progress import Step, part

from ..clipset import ClipSet
from ..decoding import Input, Progress, Sampling, Video
from ..measure import Evaluation, Subject, evaluate, evaluate_bundles

WINDOWS = 3  # of a clip, whose scores are averaged
SAMPLING = Sampling("uniform", WINDOWS)


def subject(path: Path) -> Subject:
    """Return a model of a training, run by PyTorch, as a model to measure.

    Args:
        path: Its file.

    Raises:
        CheckpointError: The file is not of a training.
    """
    facts = TrainingFacts.read(path)
    if facts is None:
        raise CheckpointError(f"{path}: does not say its labels: it is not of `vmp-edge train`")
    model = load_checkpoint(path)
    frames = model.options.num_frames
    rate = facts.frame_rate if facts.span is None else frames / facts.span

    def run(video: Video) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(np.ascontiguousarray(video))))

    known = {"engine": "torch", "precision": "fp32", "bytes": path.stat().st_size}
    return Subject(str(path), facts.labels, Input(frames, facts.preprocessing, rate), run, known)


def of_fold(path: Path, clips: ClipSet, progress: Progress, workers: int | None) -> Evaluation:
    """Measure a fold's model by PyTorch.

    Args:
        path: The model's file.
        clips: The clips that the fold holds out.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.
    """
    return evaluate([subject(path)], clips, SAMPLING, workers=workers, progress=progress, stream=True)[0]


def of_bundle(bundle: Path, clips: ClipSet, progress: Progress, workers: int | None) -> Evaluation:
    """Measure a bundle, as `vmp-edge evaluate` does.

    Args:
        bundle: Its folder.
        clips: The clips that its model has not seen.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.
    """
    return evaluate_bundles([str(bundle)], clips, SAMPLING, workers=workers, progress=progress, stream=True)[0]


def build(checkpoint: Path, bundle: Path, engine: str | None, progress: Progress) -> Path:
    """Build a model's bundle for this machine, unless an earlier call has built it.

    Args:
        checkpoint: The model's file.
        bundle: The bundle's folder.
        engine: What executes it; None takes the target's.
        progress: Makes a progress bar, like `tqdm.tqdm`.

    Raises:
        BuildError, MissingDependencyError: See `vmp_edge.compile.pipeline.build`.
    """
    from vmp_edge.compile import pipeline

    class Quiet(pipeline.Stages):
        """Shows a build's stages as parts of one step."""

        @contextmanager
        def __call__(self, what: str) -> Iterator[None]:
            with part(what):
                yield

    if bundle.exists():
        try:
            Bundle.open(bundle)
            return bundle
        except BundleError:  # it is damaged, or of another version: it is built anew
            pass
    request = pipeline.Request("host", checkpoint=checkpoint, output=bundle, engine=engine)
    with Step(f"building the bundle {bundle}"):
        pipeline.build(request, progress, Quiet)
    return bundle


def check_installed(engine: str | None) -> None:
    """Check, before anything is trained, that bundles can be built and pictures be drawn.

    Args:
        engine: What executes the bundles; None takes the host target's.

    Raises:
        UsageError: The engine is unknown.
        MissingDependencyError: Something is not installed.
    """
    from vmp_edge.compile import lowering, needs
    from vmp_edge.compile import target as targets

    host = targets.load("host")
    name, precision = engine or host.engine, host.precisions[0]
    targets.check_choice(host, name, precision)
    needed = {"sklearn": "training", "matplotlib": "the training's curves", "jinja2": "the training's report"}
    needs.require_all(
        partial(lowering.find(name).check, host, precision),
        *(partial(needs.require_package, package, purpose, "train") for package, purpose in needed.items()),
    )
