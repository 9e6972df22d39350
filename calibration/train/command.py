"""From a folder of clips to a bundle that recognises their classes: what `vmp-edge train` does before it trains."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..clipset import ClipSet
from . import geometry, measuring, parallel, survey
from . import start as starts
from .console import Console
from .forecast import Clock
from .geometry import Cut
from .settings import Settings, State, keep_clips, open_output
from .start import Start
from .survey import Survey
from .training import Training


def run(settings: Settings, console: Console) -> dict[str, Any]:
    """Train on a folder of clips. A run that was stopped goes on when the function is called with the same settings.

    Args:
        settings: What the user asks for.
        console: Where it says what it does.

    Returns:
        The content of ``results.json``.

    Raises:
        UsageError: A setting is impossible, the clips cannot be trained on, or the output belongs to something else.
        ClipSetError: The clips cannot be read.
        CheckpointError: The model to start from cannot be loaded.
        MissingDependencyError: Something is not installed.
        BuildError: A bundle cannot be built.
        KeyboardInterrupt: It was stopped; a message has said what is there.
    """
    clock = Clock()
    settings.check_output()
    clips = survey.read(settings.clips, settings.group)
    measuring.check_installed(settings.engine)
    widths = {name: int(value) for name, value in settings.recipe.items() if name in ("embed_dim", "depth")}
    seed = int(settings.recipe.get("seed", 0))
    start = starts.load(settings.init, settings.frames, settings.image_size, widths, seed)
    # Under torchrun the first process looks at the clips and tells the others what it has found.
    first = parallel.current().index == 0
    prepared = parallel.agree(_prepare(settings, console, start, clips, seed) if first else None)
    assert prepared is not None
    return Training(settings, console, clock, start, *prepared).run()


def _prepare(
    settings: Settings, console: Console, start: Start, clips: ClipSet, seed: int
) -> tuple[Survey, State, Cut | None, float | None]:
    """Look at the clips, open the output, and decide what is measured on what."""
    if (text := clips.note()) is not None:
        console.message(text)
    frames, workers = start.model.options.num_frames, settings.workers
    found = survey.survey(clips, frames, settings.folds, seed, console.progress, workers)
    state = open_output(settings)
    cut, control_before = None, None
    if settings.one_geometry:
        folder, control_before = settings.output / "clips", found.control
        clips, cut = geometry.bring_to_one(found.clips, found.geometries, folder, console.progress, workers)
        again = survey.survey(clips, frames, None, seed, console.progress, workers)
        split = dataclasses.replace(again.split, by=found.split.by)
        found = dataclasses.replace(again, skipped=found.skipped, split=split)
    keep_clips(found.clips, settings.output)
    state.span = state.span or settings.span or found.usual_span()
    state.write(settings.output)
    return found, state, cut, control_before
