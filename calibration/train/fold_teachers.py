"""Which model teaches which: none may learn from one that knows the clips on which it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmp_edge.errors import UsageError

from ..clipset import ClipSet
from .console import Console
from .settings import CLIPS
from .start import RESULT


@dataclass(frozen=True)
class Teachers:
    """The teachers of a training's models.

    Attributes:
        place: A model's file, the output of an earlier training on the same clips and folds, or None for no teacher.
    """

    place: Path | None

    def check(self, clips: ClipSet, console: Console) -> None:
        """Check that the teachers are there, and warn of one that may have seen what is held out.

        Args:
            clips: The clips with their folds.
            console: Where it says what it does.

        Raises:
            UsageError: There is no such file, or the earlier training was on other clips or folds.
        """
        place = self.place
        if place is None:
            return
        if (place / CLIPS).is_file():
            if (place / CLIPS).read_text(encoding="utf-8") != clips.csv(place):
                raise UsageError(
                    f"{place} is a training on other clips or folds, so that its models may have seen what is held out "
                    "here: give both the same clips, --group, --folds and seed"
                )
            return
        if not place.is_file():
            raise UsageError(f"--teacher {place}: give a model's file, or the --output of an earlier training")
        console.message(
            f"note: if {place} was trained on these clips, the accuracy of what is held out looks better than it is; "
            "the --output of a training on the same clips has a teacher for each part"
        )

    def of(self, name: str) -> Path | None:
        """Return the file of a model's teacher.

        Args:
            name: The model's name; ``model`` is the final one.

        Raises:
            UsageError: The earlier training has no such model.
        """
        if self.place is None or not (self.place / CLIPS).is_file():
            return self.place
        path = self.place / (RESULT if name == Path(RESULT).stem else f"{name}.pth")
        if not path.is_file():
            raise UsageError(f"{path} is missing: the teacher's training must be finished and of the same kind")
        return path
