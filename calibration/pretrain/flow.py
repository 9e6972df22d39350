"""The flow of `vmp-edge pretrain`: decode, foretell, pre-train, and go on where an earlier call was stopped."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vmp_edge.errors import UsageError
from vmp_edge.files import make_output_folder, whole
from vmp_edge.formatting import quantity
from vmp_edge.progress import duration

from ..clipset import ClipSet
from ..train import parallel
from ..train.console import Console
from ..train.start import RESULT, Start
from . import pieces
from .alignment import PretrainingRecipe, make_trainer, write
from .pieces import Pieces
from .teachers import Teacher

CHECKPOINT = "pretraining.checkpoint"
STATE = "pretraining.json"
_TRIAL = ".trial"
_TRIAL_STEPS = 3
_WHILE_IT_RUNS = (CHECKPOINT, "pieces-*", "features*.bin", "known*.bin")

History = list[dict[str, float]]


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        recipe: See `PretrainingRecipe`; `minutes` overrules its epochs.
        start: The student.
        teacher: The teacher.
        videos: The videos.
        span: Seconds of a piece.
        folder: Gets the result, ``model.pth``, and while it runs the checkpoint, the decoded videos and the teacher's
            features.
        minutes: About how long it may take; None takes the recipe's epochs.
        workers: See `in_workers`.
    """

    recipe: PretrainingRecipe
    start: Start
    teacher: Teacher
    videos: ClipSet
    span: float
    folder: Path
    minutes: float | None = None
    workers: int | None = None

    def comparable(self) -> dict[str, Any]:
        """Return all that decides the result, but for the videos, as JSON has it."""
        options = self.start.model.options
        return {
            **dataclasses.asdict(self.recipe),
            "minutes": self.minutes,
            "init": self.start.name,
            "frames": options.num_frames,
            "image_size": options.image_size,
            "teacher": self.teacher.identity,
            "span": self.span,
        }


def run(request: Request, console: Console) -> History:
    """Pre-train a model, or go on where an earlier call with the same settings was stopped.

    Args:
        request: See `Request`.
        console: Where it says what it does.

    Returns:
        A record of each epoch, see `Trainer`.

    Raises:
        UsageError: The folder holds something else, or the teacher gives nothing to learn.
        ClipSetError: No video can be used.
    """
    folder, part = request.folder, parallel.current()
    state = parallel.by_first(lambda: _open(request))
    history = parallel.by_first(lambda: _finished(folder))
    if history is not None:
        console.message(f"{folder} is finished already")
        return history
    frames, preprocessing = request.start.model.options.num_frames, request.start.preprocessing
    decoded = pieces.decode(
        request.videos, frames, request.span, preprocessing, folder, console.progress, request.workers
    )
    recipe = request.recipe
    if state["epochs"] is None:
        console.message(
            f"{quantity(len(decoded), 'piece')} of {quantity(len(request.videos), 'video')}; trying how fast it goes"
        )
        state["epochs"] = parallel.agree(_foretell(request, decoded, console))
        if part.index == 0:
            _write(folder, state)
    recipe = dataclasses.replace(recipe, epochs=int(state["epochs"]))
    trainer, _ = make_trainer(recipe, request.start, request.teacher, decoded, folder, folder / CHECKPOINT)
    trainer.run(console.progress)
    if part.index == 0:
        write(trainer.best, request.start, recipe, request.teacher, request.span, trainer.history, folder / RESULT)
    parallel.wait()
    _remove_what_it_needed(folder)
    return trainer.history


def _finished(folder: Path) -> History | None:
    """Return the epochs of a pre-training that is finished, or None if it is not."""
    if not (folder / RESULT).is_file():
        return None
    return list(torch.load(folder / RESULT, weights_only=True)["history"])


def _remove_what_it_needed(folder: Path) -> None:
    """Remove what a finished pre-training no longer needs, in the first process of each machine."""
    if parallel.on_this_machine().index == 0:
        for pattern in _WHILE_IT_RUNS:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def _foretell(request: Request, decoded: Pieces, console: Console) -> int:
    """Measure how fast it goes, say how long it takes, and return the number of epochs."""
    recipe = request.recipe
    place = request.folder / _TRIAL
    trainer, lessons = make_trainer(
        dataclasses.replace(recipe, views=0), request.start, request.teacher, decoded, request.folder, place
    )
    counted, learning = 0, 0.0
    begin = time.perf_counter()
    batches = lessons.batches(np.random.default_rng(0), parallel.current())
    for number, (video, targets) in enumerate(batches):
        before = time.perf_counter()
        trainer.step(number, video, targets)  # type: ignore[arg-type]
        learning += time.perf_counter() - before
        counted += 1
        if counted == _TRIAL_STEPS:
            break
    teaching = (time.perf_counter() - begin - learning) / counted  # of a batch, with its making
    step, steps = learning / counted, lessons.steps

    def seconds(epochs: int) -> float:
        taught = min(recipe.views, epochs) if recipe.views else epochs
        return steps * (epochs * step + taught * teaching)

    epochs = recipe.epochs
    if request.minutes is not None:
        epochs = 1
        while seconds(epochs + 1) < 60 * request.minutes:
            epochs += 1
    console.message(
        f"{quantity(epochs, 'epoch')} of {quantity(steps, 'step')} will take about {duration(seconds(epochs))}"
    )
    return epochs


def _open(request: Request) -> dict[str, Any]:
    """Write down what decides the run, or check that a run to go on with has the same.

    Returns:
        ``settings``, and ``epochs``, which are None before they are decided.

    Raises:
        UsageError: It has not, or the folder holds something else.
    """
    folder, values = request.folder, request.comparable()
    make_output_folder(folder)
    path = folder / STATE
    if not path.exists():
        if any(folder.iterdir()):
            raise UsageError(f"{folder} holds files that are of no pre-training: choose an empty or new --output")
        state = {"settings": values, "epochs": None}
        _write(folder, state)
        return state
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        before, _ = state["settings"], state["epochs"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is damaged: choose another --output") from error
    for name, value in values.items():
        if before.get(name) != value:
            raise UsageError(
                f"{folder} holds a pre-training with another {name.replace('_', ' ')}: give the same options to go on "
                "with it, or choose another --output"
            )
    return dict(state)


def _write(folder: Path, state: dict[str, Any]) -> None:
    with whole(folder / STATE) as place:
        place.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
