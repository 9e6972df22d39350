"""What the user asks of a training, and the output folder that belongs to it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmp_edge.bundle.sampling import LONGEST, SHORTEST
from vmp_edge.errors import UsageError
from vmp_edge.files import make_output_folder, whole

from ..clipset import ClipSet
from .recipe import ClipsRecipe
from .start import DEFAULT

STATE = "run.json"
CLIPS = "clips.csv"
LABELS = "labels.txt"
_FORMAT = 1
_NOT_COMPARED = ("clips", "output", "workers")  # these may differ when a training goes on


@dataclass(frozen=True)
class Settings:
    """What the user asks for.

    Attributes:
        clips: A folder of class folders, or a CSV with path, label, and if wanted group and fold.
        output: Folder of the results.
        init: See `start.load`.
        frames: T; None keeps the start's.
        image_size: S; None keeps the start's.
        span: Seconds that a window spans; None takes it from the lengths of the clips.
        head_only: Train only the last layer, on features of the start.
        teacher: A trained model's file, or the output of an earlier training, to learn from; None for none.
        minutes: How long all of it may take; None takes as many epochs as the recipe says.
        epochs: Passes over the clips; None takes those of the recipe.
        group: The CSV's column of groups; None takes ``group`` if there is one.
        folds: Measure by cross-validation with so many folds; None holds one part out.
        final: Whether to train a model on all clips in the end, and to build its bundle.
        one_geometry: Cut all clips to one size and length first.
        engine: What executes the bundles; None takes the host target's.
        workers: See `in_workers`.
        recipe: Values for fields of the recipe, by name.

    Raises:
        UsageError: A value is out of range, or two contradict each other.
    """

    clips: Path
    output: Path
    init: str = DEFAULT
    frames: int | None = None
    image_size: int | None = None
    span: float | None = None
    head_only: bool = False
    teacher: Path | None = None
    minutes: float | None = None
    epochs: int | None = None
    group: str | None = None
    folds: int | None = None
    final: bool = True
    one_geometry: bool = False
    engine: str | None = None
    workers: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("image_size", 1), ("epochs", 1), ("folds", 2), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{_flag(name)} is {value}; it must be at least {least}")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise UsageError(f"--minutes is {self.minutes:g}; it must be above 0")
        if self.span is not None and not SHORTEST <= self.span <= LONGEST:
            raise UsageError(f"--span is {self.span:g}; it must be from {SHORTEST:g} to {LONGEST:g} seconds")
        if self.minutes is not None and self.epochs is not None:
            raise UsageError("give --minutes or --epochs, not both")
        if self.head_only and (given := [n for n in ("minutes", "epochs", "teacher") if getattr(self, n) is not None]):
            raise UsageError(f"--head-only trains one layer in one go: leave out {', '.join(map(_flag, given))}")
        if not self.final and self.folds is None:
            raise UsageError("--no-final leaves only a measurement, which is for --folds")
        ClipsRecipe(**self.recipe)  # checks the values

    def comparable(self) -> dict[str, Any]:
        """Return all settings that decide the result, as JSON has them."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _NOT_COMPARED}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def check_output(self) -> None:
        """Check that the output folder can be one, before anything is decoded.

        Raises:
            UsageError: It lies among the clips, holds something else or a training with other settings, or cannot be
                written.
        """
        output, clips = self.output.resolve(), self.clips.resolve()
        if clips.is_dir() and output.is_relative_to(clips):
            raise UsageError(f"--output {self.output} lies in the clips' folder {self.clips}: choose one outside it")
        if clips.is_dir() and clips.is_relative_to(output):
            raise UsageError(f"--output {self.output} holds the clips' folder {self.clips}: choose one outside it")
        if output.exists() and not output.is_dir():
            raise UsageError(f"--output {self.output} is a file: choose a folder")
        if not (output / STATE).exists() and output.is_dir() and any(output.iterdir()):
            raise UsageError(
                f"--output {self.output} holds files that are of no training: choose an empty or new folder"
            )
        self._check_same(State.read(output))

    def _check_same(self, state: State) -> None:
        for name, value in self.comparable().items():
            before = state.settings.get(name) if state.settings else value
            if before == value:
                continue
            if name == "recipe":
                before = before or {}
                name = next(key for key in {**before, **value} if before.get(key) != value.get(key))
                text, before, value = f"--set {name}", before.get(name), value.get(name)
            else:
                text = _flag(name)
            raise UsageError(
                f"{self.output} holds a training with {text} {_shown(before)}, not {_shown(value)}: give the same "
                "options to go on with it, or another --output"
            )


@dataclass
class State:
    """What a training has decided, kept in its output folder so that the same command goes on.

    Attributes:
        settings: `Settings.comparable`; empty before anything was decided.
        span: Seconds that a window spans, once that is decided.
        epochs: Passes over the clips, once they are decided.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    span: float | None = None
    epochs: int | None = None

    @classmethod
    def read(cls, folder: Path) -> State:
        """Return the state in an output folder, or a new one if no model has begun to learn there.

        Raises:
            UsageError: The file of the state is damaged, or of another version.
        """
        path = folder / STATE
        if not path.exists() or not _has_begun(folder):
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                raise ValueError("another version")
            return cls(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{path} is damaged or of another version ({error}): choose another --output") from error

    def write(self, folder: Path) -> None:
        """Write the state into an output folder."""
        with whole(folder / STATE) as place:
            place.write_text(json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n")


def open_output(settings: Settings) -> State:
    """Make the output folder, or open that of a training with the same settings.

    Raises:
        UsageError: See `Settings.check_output`.
    """
    settings.check_output()
    make_output_folder(settings.output)
    state = State.read(settings.output)
    state.settings = settings.comparable()
    state.write(settings.output)
    return state


def keep_clips(clips: ClipSet, folder: Path) -> None:
    """Write the clips with their folds, or check that a training to go on with has the same.

    Raises:
        UsageError: They differ: its models have seen other clips than those that are held out now.
    """
    path = folder / CLIPS
    if path.exists() and _has_begun(folder) and path.read_text(encoding="utf-8") != clips.csv(folder):
        raise UsageError(f"{folder} holds a training on other clips, groups or folds: choose another --output")
    clips.write(path)
    (folder / LABELS).write_text("".join(f"{label}\n" for label in clips.labels), encoding="utf-8")


def _has_begun(folder: Path) -> bool:
    """Return whether an output folder has a model, or one that is not finished."""
    return any(True for pattern in ("*.pth", "*.checkpoint") for _ in folder.glob(pattern))


def _flag(name: str) -> str:
    return "--no-final" if name == "final" else f"--{name.replace('_', '-')}"


def _shown(value: Any) -> str:
    return "left out" if value is None else str(value)
