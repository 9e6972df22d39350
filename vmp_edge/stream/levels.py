"""`Levels`: which recogniser and which window a stream uses at each level of its governor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import UsageError
from ..recognizer import Recognizer
from .governor import Level
from .window import Window


class Levels:
    """The recogniser and the window of each level.

    Args:
        levels: The governor's levels. Empty without a governor.
        recognizer: The recogniser of the levels without a variant.
        variants: Recognisers by the names in the levels.
        window: The window that was asked for. The levels' spacings are relative to it.

    Raises:
        UsageError: A level's variant is missing, or the recognisers have different labels.
    """

    def __init__(
        self, levels: Sequence[Level], recognizer: Recognizer, variants: Mapping[str, Recognizer], window: Window
    ) -> None:
        self._levels = tuple(levels)
        self._recognizers: dict[str | None, Recognizer] = {None: recognizer}
        self._recognizers.update(variants)
        self._requested = window
        if self._levels:
            self._check()

    def recognizer(self, level: Level) -> Recognizer:
        """Return the recogniser of a level."""
        return self._recognizers[level.variant]

    def window(self, level: Level) -> Window:
        """Return the window of a level. A variant with fewer frames spans the same time."""
        frames = self.recognizer(level).frames
        apart = level.slower * self._requested.frames / frames
        return replace(self._requested, frames=frames, hop=level.hop).slower(apart)

    def capacity(self, recognizer: Recognizer) -> int:
        """Return the largest ring that any level needs whose windows have as many frames as a recogniser takes."""
        windows = [self.window(level) for level in self._levels]
        return max((window.capacity for window in windows if window.frames == recognizer.frames), default=0)

    def _check(self) -> None:
        for level in self._levels:
            if level.variant not in self._recognizers:
                raise UsageError(f"the governor's levels want the variant {level.variant!r}, which was not given")
        if len({recognizer.labels for recognizer in self._recognizers.values()}) > 1:
            raise UsageError("the variants recognise other labels: build them of one model")
