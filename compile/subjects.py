"""The models that a build measures on clips: bundles, emulated bundles, exported programs and the source model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmp_edge import engines
from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration.decoding import Input, Video
from vmp_edge.calibration.measure import Subject
from vmp_edge.recognizer import Recognizer

if TYPE_CHECKING:
    from contextlib import ExitStack

    from torch.export import ExportedProgram

    from .lowering import EmulatedEngine
    from .source import SourceModel


def input_of(source: SourceModel) -> Input:
    """Return what a source model takes of a video."""
    return Input(source.module.options.num_frames, source.preprocessing, source.window_rate)


def of_source(source: SourceModel, target: str) -> Subject:
    """Return a source model as a subject, run by PyTorch in float32.

    Args:
        source: The model.
        target: The name of the target that it is compared for.
    """

    def run(video: Video) -> npt.NDArray[np.float32]:
        import torch

        with torch.no_grad():
            return np.asarray(source.module(torch.from_numpy(np.ascontiguousarray(video))))

    facts = {"model": source.name, "target": target, "engine": "torch", "precision": "fp32"}
    return Subject(f"{source.name}, float", source.labels, input_of(source), run, facts)


def of_program(program: ExportedProgram, like: Subject, tubelet: int) -> Subject:
    """Return an exported program as a subject, run by PyTorch: for targets that this machine is not.

    Args:
        program: The program.
        like: A subject with the same labels, input and facts.
        tubelet: Frames of a token.
    """
    import torch

    from .graph import fold_frames

    module = program.module(check_guards=False)

    def run(video: Video) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits = module(fold_frames(torch.from_numpy(np.ascontiguousarray(video)), tubelet))
        return np.asarray(logits)

    return dataclasses.replace(like, run=run, can_be_timed=False)


def of_emulator(engine: EmulatedEngine, like: Subject) -> Subject:
    """Return an emulated bundle as a subject.

    Args:
        engine: The emulated engine.
        like: A subject with the same labels, input and facts.
    """
    facts = {**like.facts, "engine": engine.emulator}
    return dataclasses.replace(like, run=engine.run, facts=facts, can_be_timed=False)


def of_bundle(bundle: Bundle, name: str, threads: int | None, stack: ExitStack) -> Subject:
    """Return a bundle as a subject, run by its engine.

    Args:
        bundle: The bundle.
        name: The subject's name.
        threads: Threads for the engine; None takes the bundle's.
        stack: Closes the engine at its end.
    """
    recognizer = stack.enter_context(Recognizer(bundle, engines.create(bundle, threads)))
    return dataclasses.replace(Subject.of(recognizer, threads), name=name)
