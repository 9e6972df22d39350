"""One training: its models, what is measured on what they have not seen, and the final model with its bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge.formatting import percent, plain, quantity
from vmp_edge.names import cleaned
from vmp_edge.progress import duration

from ..evaluation import Evaluation, merge
from . import batches, footage, head, measuring, parallel, results, survey
from .console import Console
from .fit import Job, Speed, Trained, clip_seconds, epochs_done, fit, fit_head, keep_best, speed
from .fold_teachers import Teachers
from .footage import Footage
from .forecast import Clock, Work
from .geometry import Cut
from .head import Head
from .inspection import scenes
from .mirror import mirrored
from .recipe import ClipsRecipe, recipe_for
from .results import BUNDLE, FINAL, HELD_OUT, Measured
from .settings import Settings, State
from .start import Start
from .survey import Survey

_BEST = "best-so-far.pth"


@dataclass
class Training:
    """One training, from its clips on.

    Attributes:
        settings: What the user asks for.
        console: Where it says what it does.
        clock: Runs since the beginning.
        start: The model to start from.
        found: What was found in the clips.
        state: What is decided.
        cut: The size and length to which all clips were cut; None if they were not.
        control_before: What size and length alone recognised before that; None if the clips were not cut.
        models: The models that were trained, by name.
        features: Of all clips, where only the last layer is trained; see `head.features`.
        fitted: The last layer that was fitted.
        plan: What there is to do, and how fast this machine is; None where only the last layer is trained.
    """

    settings: Settings
    console: Console
    clock: Clock
    start: Start
    found: Survey
    state: State
    cut: Cut | None = None
    control_before: float | None = None
    models: dict[str, Trained] = dataclasses.field(default_factory=dict)
    features: NDArray[np.float32] | None = None
    fitted: Head | None = None
    plan: tuple[Work, Speed] | None = None

    def __post_init__(self) -> None:
        self.folder, self.clips = self.settings.output, self.found.clips
        self.first = parallel.current().index == 0
        self.teachers = Teachers(self.settings.teacher)
        assert self.state.span is not None
        self.span = self.state.span
        single = self.settings.folds is None
        # The fold that each model to measure does not see, by the model's name.
        self.held_out = {HELD_OUT: self.found.split.held_out()}
        if not single:
            self.held_out = {f"fold-{fold}": fold for fold in self.clips.folds}
        self.warnings = survey.warnings(self.found, self.held_out.get(HELD_OUT), self.span)
        self.recipe = self._recipe()

    def run(self) -> dict[str, Any]:
        """Do everything that is not done yet, and return the content of ``results.json``.

        Under torchrun all processes train, and the first one does the rest; for the others the result is empty.
        """
        self._describe()
        self.teachers.check(self.clips, self.console)
        pixels = self._decode()
        if self.settings.head_only:
            self._compute_features(pixels)
        else:
            self._foretell(pixels)
        parts = [self._measure(name, fold, pixels) for name, fold in self.held_out.items()]
        measured = self._measured([part for part in parts if part is not None]) if self.first else None
        if self.settings.final:
            self._train_final(measured, pixels)
        return self._finish(measured) if measured is not None else {}

    def _finish(self, measured: Measured) -> dict[str, Any]:
        """Write the pictures, the report and the results."""
        values = results.to_dict(measured, self.settings, self.recipe, self.span)
        if self.settings.final:
            values |= {"model": str(self.folder / f"{FINAL}.pth"), "bundle": str(self.folder / BUNDLE)}
        if self.fitted is not None and self.fitted.held_out is not None:
            values["head_held_out"] = round(self.fitted.held_out.accuracy, 4)
        results.draw(measured, self.folder)
        results.write_report(measured, self.settings, self.recipe, self.span)
        values |= {"seconds": round(self.clock.spent, 1), "foretold_seconds": self.clock.foretold}
        results.write(values, self.folder)
        return values

    def _describe(self) -> None:
        """Say what was found, and what the user should know about it."""
        console, clips, found = self.console, self.clips, self.found
        left_out = f", {len(found.skipped)} left out" if found.skipped else ""
        console.say(f"{self.settings.clips}: {quantity(len(clips), 'clip')} of {len(clips.labels)} classes{left_out}")
        for label, text in survey.table(found):
            console.row(label, text)
        for video in found.skipped:
            console.message(f"left out: {video.path}: {video.reason}")
        if self.cut is not None:
            console.row("cut to", f"{self.cut.width}x{self.cut.height} pixels and {self.cut.seconds:.2f} s")
        options = self.start.model.options
        size = options.image_size
        console.row("window", f"{options.num_frames} frames over {plain(self.span)} s, {size}x{size} pixels")
        kept = {"clip": "", "fold": " (the CSV's folds)"}.get(found.split.by, f", every {found.split.by} on one side")
        text = f"each of {len(self.held_out)} parts in its turn"
        if (fold := self.held_out.get(HELD_OUT)) is not None:
            text = f"{quantity(len(clips.fold(fold)), 'clip')} of {len(clips)}, to measure how good the model is"
        console.row("held out", f"{text}{kept}")
        for warning in self.warnings:
            console.message(f"note: {warning}")

    def _decode(self) -> Footage:
        options = self.start.model.options
        return footage.decode(
            self.clips,
            options.num_frames,
            self.span,
            self.start.preprocessing,
            [one.seconds for one in self.found.geometries],
            self.folder,
            self.console.progress,
            self.settings.workers,
        )

    def _recipe(self) -> ClipsRecipe:
        """Return the recipe, without the number of epochs that a time allows."""
        per_class = len(self.clips) / len(self.clips.labels)
        usual = recipe_for(per_class, self.start.model.options.depth, self.start.is_trained)
        options = self.start.model.options
        recipe = dataclasses.replace(
            usual, **{**self.settings.recipe, "embed_dim": options.embed_dim, "depth": options.depth}
        )
        smallest = min(len(self.clips.outside(fold)) for fold in self.held_out.values())
        recipe = dataclasses.replace(recipe, batch=min(recipe.batch, smallest // 2 * 2 or 1))
        return dataclasses.replace(recipe, epochs=self.settings.epochs or recipe.epochs)

    def _foretell(self, pixels: Footage) -> None:
        """Measure the speed, decide on the epochs, and say how long it will take."""
        name, fold = next(iter(self.held_out.items()))
        job = self._job(name, pixels.outside(fold))
        measured = speed(job, self.folder)
        counts = tuple(len(self.clips.fold(fold)) for fold in self.held_out.values())
        single, final = self.settings.folds is None, self.settings.final
        work = Work(len(self.clips), counts, self.recipe.batch, final, single, single + final, self.recipe.depth)
        self.plan = work, measured
        epochs = self.state.epochs or self.recipe.epochs
        if self.state.epochs is None and self.settings.minutes is not None:
            epochs = work.epochs_within(self.settings.minutes, self.clock.spent, epochs, measured)
        self.state.epochs = epochs = parallel.agree(epochs)
        if self.first:
            self.state.write(self.folder)
        self.recipe = dataclasses.replace(self.recipe, epochs=epochs)
        done = sum(
            min(epochs, epochs_done(self._job(name, pixels), self.folder)) * work.epoch_without(count, measured)
            for name, count in zip(self.held_out, counts, strict=True)
        )
        if final:
            done += min(epochs, epochs_done(self._job(FINAL, pixels), self.folder)) * work.final_epoch(measured)
        seconds = self.clock.foretell(work.seconds(epochs, measured) - done)
        steps = batches.steps(len(self.clips), self.recipe.batch)
        self.console.message(
            f"about {duration(seconds)} in all, at most: {quantity(epochs, 'pass', 'passes')} over the clips of "
            f"{quantity(steps, 'step')} each, {measured.step:.2f} s a step"
        )

    def _job(self, name: str, chosen: Footage, held_out: Footage | None = None) -> Job:
        """Return the training of a model. Without clips that are held out it does not stop early."""
        recipe = self.recipe if held_out is not None else dataclasses.replace(self.recipe, patience=0)
        run = self.folder.resolve().name
        facts = {"name": cleaned(run if name == FINAL else f"{run}-{name}")}
        return Job(name, self.start, recipe, self.clips.labels, chosen, held_out, self.teachers.of(name), facts)

    def _measure(self, name: str, fold: int, pixels: Footage) -> Evaluation | None:
        """Train a model without a fold's clips, and measure it on these; None in processes besides the first."""
        chosen, held_out, clips = pixels.outside(fold), pixels.fold(fold), self.clips.fold(fold)
        words = f"training on {quantity(len(chosen), 'clip')}, {len(held_out)} held out"
        workers, progress = self.settings.workers, self.console.progress
        if name == HELD_OUT:
            self.models[name] = self._fit(self._job(name, chosen, held_out), words, pixels.folds != fold)
            if not self.first:
                return None
            bundle = measuring.build(self.models[name].path, self.folder / HELD_OUT, self.settings.engine, progress)
            return measuring.of_bundle(bundle, clips, progress, workers)
        words = f"{name.replace('-', ' ')}: {words}"
        self.models[name] = self._fit(self._job(name, chosen), words, pixels.folds != fold)
        return measuring.of_fold(self.models[name].path, clips, progress, workers) if self.first else None

    def _measured(self, parts: list[Evaluation]) -> Measured:
        """Put together what was measured, and say it."""
        evaluation = parts[0] if len(parts) == 1 else merge(parts, str(self.settings.clips))
        measured = Measured(evaluation, self.models, self.found, self.warnings, self.cut, self.control_before)
        self.console.say("how good, recognised by a model that has not seen these clips:")
        for label, text in results.accuracy_lines(evaluation):
            self.console.row(label, text)
        if (note := results.selection_note(self.models)) is not None:
            self.console.message(f"note: {note}")
        return measured

    def _train_final(self, measured: Measured | None, pixels: Footage) -> None:
        """Train the model that the user gets, on all clips, and build its bundle."""
        epochs = self.recipe.epochs
        if HELD_OUT in self.models and not self.settings.head_only:
            epochs = min(epochs, max(self.models[HELD_OUT].epoch, (epochs + 1) // 2))
        job = self._job(FINAL, pixels)
        facts = job.facts if measured is None else {**job.facts, "accuracy": results.brief(measured.evaluation)}
        job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, epochs=epochs), facts=facts)
        words = f"training the final model on all {quantity(len(pixels), 'clip')}"
        if self.plan is not None:
            work, measured_speed = self.plan
            left = work.final_seconds(max(0, epochs - epochs_done(job, self.folder)), measured_speed)
            self.console.message(f"about {duration(left)} left: now the final model, which learns from all clips")
        self.models[FINAL] = self._fit(job, words, pixels.folds >= 0)
        if not self.first:
            return
        if self.fitted is not None and self.fitted.held_out is not None:
            share = percent(self.fitted.held_out.accuracy)
            text = f"{share} of {len(pixels)}, by layers that have not seen their groups"
            self.console.row("all clips in turn", text)
        measuring.build(self.models[FINAL].path, self.folder / BUNDLE, self.settings.engine, self.console.progress)

    def _compute_features(self, pixels: Footage) -> None:
        """Compute the features of all clips, for the last layer alone."""
        model = self.start.with_classes(len(self.clips.labels), self.recipe.seed)
        seconds = clip_seconds(model, pixels)
        single, final = self.settings.folds is None, self.settings.final
        counts = tuple(len(self.clips.fold(fold)) for fold in self.held_out.values())
        work = Work(len(pixels), counts, self.recipe.batch, final, single, single + final, self.recipe.depth)
        total = self.clock.foretell(2 * len(pixels) * seconds + work.rest(Speed(0.0, seconds)))
        self.console.message(f"about {duration(total)} in all: the last layer alone, on features of {self.start.name}")
        images = mirrored(self.clips.labels)
        alike = [self.recipe.mirror and images[label] == label for label in pixels.labels]
        views = (pixels.views(i, mirror) for i, mirror in enumerate(alike))
        self.features = head.features(model, views, len(pixels), self.console.progress)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The number of the group of each clip, (N,): clips of one group are on one side of every split."""
        names = [entry.group or f"\0{i}" for i, entry in enumerate(self.clips.entries)]
        if self.found.split.by == "scene":
            return scenes(self.found.pairs)
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def _fit(self, job: Job, words: str, chosen: NDArray[np.bool_]) -> Trained:
        """Train a model. If that is stopped, keep the best so far, and say where it is.

        Args:
            job: The model.
            words: What is shown at the progress bar.
            chosen: Which of all clips are the job's.
        """
        if self.features is not None:
            names = [str(group) for group in self.groups[chosen]]
            trained, self.fitted = fit_head(job, self.features[chosen], names, self.folder, self.console.progress)
            return trained
        best = self.folder / _BEST
        try:
            trained = fit(job, self.folder, words, self.console.progress)
        except KeyboardInterrupt:
            kept = keep_best(job, self.folder, best) if self.first else None
            if kept is not None:
                figure = kept.history[kept.epoch - 1].get("top1")
                good = f", {percent(figure)} of the held-out clips" if figure is not None else ""
                self.console.message(f"the best so far is in {best} (epoch {kept.epoch}{good})")
            raise
        best.unlink(missing_ok=True)
        return trained
