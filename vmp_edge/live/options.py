"""`Options`: what to recognise live, and what to do with the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..events.clips import ClipOptions
from ..events.detector import EventRule
from ..stream.options import StreamOptions


@dataclass(frozen=True)
class Options:
    """The options of a live session.

    Args:
        bundle: Folder of the bundle.
        source: The source, as for `open_source`.
        headless: Open no window.
        record: Video file to write the picture with its overlay to.
        stream: How windows are chosen and results steadied. A budget needs a live source, or a file at its own pace.
        threads: Number of threads for the engine. None takes the bundle's.
        duration: Stop after this many seconds of the source.
        max_frames: Stop after this many frames.
        realtime: Play a file at its own pace. None does so if there is a window.
        top: Number of scores in the overlay.
        source_fps: Frame rate of a source that has none of its own: a folder of pictures, or the standard input.
        events: When an action counts as started and ended. None looks for no events.
        sinks: Where events go, each as for `open_sink`.
        clips: How clips of events are recorded. None records no clips.
        gallery: File of classes to recognise beside the trained classes.
        threshold: Least similarity of the gallery's classes, as for `Matcher`.

    Raises:
        UsageError: A value is out of range, or there are sinks or clips without events.
    """

    bundle: Path
    source: str = "0"
    headless: bool = False
    record: Path | None = None
    stream: StreamOptions = field(default_factory=StreamOptions)
    threads: int | None = None
    duration: float | None = None
    max_frames: int | None = None
    realtime: bool | None = None
    top: int = 5
    source_fps: float | None = None
    events: EventRule | None = None
    sinks: tuple[str, ...] = ()
    clips: ClipOptions | None = None
    gallery: Path | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.duration is not None and not self.duration > 0:
            raise UsageError(f"the duration must be positive, not {self.duration}")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"the number of frames must be at least 1, not {self.max_frames}")
        if self.top < 1:
            raise UsageError(f"at least 1 score must be shown, not {self.top}")
        if self.events is None and (self.sinks or self.clips is not None):
            raise UsageError("sinks and clips are for events: give a rule for them")
