"""How a model's frames are sampled and prepared, where the user says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from vmp_edge.bundle.sampling import FASTEST, LONGEST, SHORTEST, SLOWEST
from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing


@dataclass(frozen=True)
class Preparation:
    """What a user says about how a model was trained. None keeps what is known of the model.

    Attributes:
        span: Seconds that the frames of a clip come from, one from each of T equal parts.
        frame_rate: Frames per second of a clip. At most one of this and `span` is given.
        resize: How frames become squares, see `Preprocessing`.
        mean: Mean of red, green and blue, on a scale from 0 to 1.
        std: Standard deviation of red, green and blue, on the same scale.

    Raises:
        UsageError: A value is out of range, or both `span` and `frame_rate` are given.
    """

    span: float | None = None
    frame_rate: float | None = None
    resize: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.span is not None and self.frame_rate is not None:
            raise UsageError("give --span or --frame-rate, not both")
        if self.span is not None and not SHORTEST <= self.span <= LONGEST:
            raise UsageError(f"--span is {self.span:g}; it must be from {SHORTEST:g} to {LONGEST:g} seconds")
        if self.frame_rate is not None and not SLOWEST <= self.frame_rate <= FASTEST:
            raise UsageError(
                f"--frame-rate is {self.frame_rate:g}; it must be from {SLOWEST:g} to {FASTEST:g} frames per second"
            )
        self.preprocessing(Preprocessing(1))

    @property
    def says_something(self) -> bool:
        """True if the user gave any of the values."""
        return self != Preparation()

    def preprocessing(self, known: Preprocessing) -> Preprocessing:
        """Return the preprocessing with the user's values in place of those that are known.

        Raises:
            UsageError: A value is out of range.
        """
        values = {"resize": self.resize, "mean": self.mean, "std": self.std}
        given = {name: tuple(value) if name != "resize" else value for name, value in values.items() if value}
        return dataclasses.replace(known, **given)  # type: ignore[arg-type]  # checked by `Preprocessing`

    def spacing(self, known_rate: float | None, known_span: float | None) -> tuple[float | None, float | None]:
        """Return the frame rate and the span, at most one of which is not None.

        Args:
            known_rate: Frames per second that are known of the model, or None.
            known_span: Seconds that are known of the model, or None.
        """
        if self.frame_rate is not None or self.span is not None:
            return self.frame_rate, self.span
        return known_rate, known_span
