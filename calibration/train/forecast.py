"""How long a training takes: foretold after a few steps, and brought up to date while it runs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from vmp_edge.errors import UsageError
from vmp_edge.machine import usable_cpu_count

from . import batches
from .fit import Speed

_MOST_STRETCHED = 5  # times the recipe's epochs that --minutes may lead to; more passes teach nothing
# Building a bundle of a small model for this machine, which compiles its program and compares it with the model.
_BUILD, _BUILD_BLOCK = 6.0, 1.2  # seconds, and seconds for each of the model's blocks
_COMPARED = 6  # clips of that comparison
_LOOKS = 6  # windows of a held-out clip that are recognised to measure the bundle


@dataclass(frozen=True)
class Work:
    """What there is to do.

    Attributes:
        clips: Number of all clips.
        held_out: Number of clips of each fold that is measured.
        batch: Clips in a step.
        final: Whether a model is trained on all clips in the end.
        stops_early: Whether clips that are held out are recognised after every epoch.
        bundles: Number of bundles.
        blocks: The model's blocks.
    """

    clips: int
    held_out: tuple[int, ...]
    batch: int
    final: bool
    stops_early: bool
    bundles: int
    blocks: int

    def epoch(self, speed: Speed) -> float:
        """Return the seconds that one epoch of all trainings takes."""
        measured = sum(self.epoch_without(count, speed) for count in self.held_out)
        return measured + (self.final_epoch(speed) if self.final else 0.0)

    def epoch_without(self, held_out: int, speed: Speed) -> float:
        """Return the seconds that one epoch of a model takes that does not see some clips."""
        validation = held_out * speed.clip if self.stops_early else 0.0
        return batches.steps(self.clips - held_out, self.batch) * speed.step + validation

    def final_seconds(self, epochs: int, speed: Speed) -> float:
        """Return the seconds that the final model takes, with its bundle."""
        return epochs * self.final_epoch(speed) + self._build(speed)

    def final_epoch(self, speed: Speed) -> float:
        """Return the seconds that one epoch of the final model takes."""
        return batches.steps(self.clips, self.batch) * speed.step

    def _build(self, speed: Speed) -> float:
        return (_BUILD + _BUILD_BLOCK * self.blocks) * _business() + _COMPARED * speed.clip

    def rest(self, speed: Speed) -> float:
        """Return the seconds of all that does not depend on the number of epochs."""
        return self.bundles * self._build(speed) + sum(self.held_out) * _LOOKS * speed.clip

    def seconds(self, epochs: int, speed: Speed) -> float:
        """Return the seconds that all of it takes at most."""
        return epochs * self.epoch(speed) + self.rest(speed)

    def epochs_within(self, minutes: float, spent: float, usual: int, speed: Speed) -> int:
        """Return how many epochs fit into a time.

        Args:
            minutes: The time for all of it.
            spent: Seconds that were spent already.
            usual: The recipe's epochs.
            speed: The machine's speed.

        Raises:
            UsageError: The time is too short for one epoch.
        """
        left = 60 * minutes - spent - self.rest(speed)
        epochs = int(left / self.epoch(speed))
        if epochs < 1:
            needed = (spent + self.seconds(usual, speed)) / 60
            raise UsageError(
                f"--minutes {minutes:g} is too short for a single pass over the clips; about {needed:.0f} minutes are "
                "usual here, and --head-only is quicker"
            )
        return min(epochs, _MOST_STRETCHED * usual)


class Clock:
    """The time that was foretold, and what became of it."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.foretold: float | None = None

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def foretell(self, seconds: float) -> float:
        """Keep how long all that is still to come takes, and return the seconds from the beginning to the end."""
        self.foretold = self.spent + seconds
        return self.foretold


def _business() -> float:
    """Return how many times as long as on an idle machine something takes that uses all CPUs."""
    return max(1.0, os.getloadavg()[0] / usable_cpu_count())
