"""Video clips of events, from some seconds before the start to some seconds after the end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..files import whole
from ..sources import Message
from ..view.recording import Recorder, RecordingError
from .detector import Event

_QUALITY = 90  # of the JPEGs that frames are kept as
_SLACK = 2.0  # seconds that a window's latency may make a start's telling later still
_NAME = re.compile(r".+-(\d{8}T\d{6}\.\d{3}Z|\d+\.\d{3}s)")


@dataclass(frozen=True)
class ClipOptions:
    """Which clips to record.

    Args:
        folder: Made if it is not there.
        pre_roll: Seconds before an event's start.
        post_roll: Seconds after its end, at least: a clip goes on until the end is certain.
        keep: How many clips to keep; the oldest of the folder go. None keeps all.
        longest: Seconds after which a clip ends although its event goes on.
        memory: Bytes that compressed frames may take: half of them for the pre-roll, half waiting to be written.

    Raises:
        UsageError: A value is out of range.
    """

    folder: Path
    pre_roll: float = 3.0
    post_roll: float = 2.0
    keep: int | None = None
    longest: float = 300.0
    memory: int = 128 << 20

    def __post_init__(self) -> None:
        for name, seconds in (("pre-roll", self.pre_roll), ("post-roll", self.post_roll)):
            if not 0 <= seconds <= 600:
                raise UsageError(f"the {name} must be from 0 to 600 seconds, not {seconds:g}")
        if self.keep is not None and self.keep < 1:
            raise UsageError(f"at least 1 clip must be kept, not {self.keep}")
        if not self.longest > 0 or self.memory < 1 << 20:
            raise UsageError("clips need a positive length and at least 1 MiB of memory")


@dataclass(frozen=True)
class _Kept:
    """A frame as JPEG, and its time in seconds since the source's first one."""

    content: bytes
    seconds: float


@dataclass
class _Clip:
    """A clip that is being recorded."""

    name: str
    start: float
    events: dict[int, Event] = field(default_factory=dict)  # by number

    @property
    def goes_on(self) -> bool:
        return any(not event.ended for event in self.events.values())

    @property
    def last_end(self) -> float:
        return max(event.end for event in self.events.values() if event.end is not None)


class ClipRecorder:
    """Keeps the newest frames, and writes a clip when an event starts: `LABEL-TIME.mp4`, and `LABEL-TIME.json` last.

    Frames are compressed in the caller's thread and written in another one. Events that overlap, or that come within
    the post-roll, share a clip. A clip that cannot be written is told and left out: it does not end recognition.

    Args:
        options: Which clips.
        fps: Frames per second of the clips.
        late: Seconds after it that a start is told: the event rule's hold, and the time from window to window.
        source: The source's name, for the JSON.
        tell: Told of clips that cannot be written, and of frames left out for want of memory.
        wait: When the writer cannot keep up, wait for it rather than leave frames out: for files.

    Raises:
        RecordingError: The folder cannot be made or written to.
    """

    def __init__(
        self, options: ClipOptions, fps: float, late: float, source: str, tell: Message, wait: bool = False
    ) -> None:
        self.options = options
        self.written = 0  # clips
        self.left_out = 0  # frames
        self._is_short = False  # the pre-roll, for want of memory
        self._fps, self._source, self._tell, self._wait = fps, source, tell, wait
        self._before = options.pre_roll + late + _SLACK
        self._ring: deque[_Kept] = deque()
        self._ring_size = self._queue_size = 0  # bytes
        self._clip: _Clip | None = None
        self._freed = threading.Condition()
        self._jobs: queue.SimpleQueue[_Kept | _Clip | None] = queue.SimpleQueue()
        try:
            options.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f"clips cannot be written to {options.folder}: {error.strerror}") from error
        if not os.access(options.folder, os.W_OK):
            raise RecordingError(f"clips cannot be written to {options.folder}: no permission")
        self._writer = threading.Thread(target=self._write, name="vmp-edge clips", daemon=True)
        self._writer.start()

    def add(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        """Takes a frame in.

        Args:
            image: uint8 (H, W, 3) BGR; not kept.
            seconds: Since the source's first frame.
        """
        kept = _Kept(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes(), seconds)
        if self._clip is not None and self._is_over(self._clip, seconds):
            self.cut()
        self._remember(kept)
        if self._clip is not None:
            self._enqueue(kept)

    def cut(self) -> None:
        """Ends the clip that is open, if any: no more frames will come, or not soon."""
        clip, self._clip = self._clip, None
        if clip is not None:
            self._jobs.put(clip)  # for the second time: it is whole

    def tell(self, event: Event) -> None:
        """Takes note that an event has started or ended. Its start opens a clip, unless one is open."""
        if not event.ended and self._clip is None:
            self._open(event)
        if self._clip is not None and (not event.ended or event.number in self._clip.events):
            self._clip.events[event.number] = event

    def close(self) -> None:
        """Writes what is open to its end."""
        self.cut()
        self._jobs.put(None)
        self._writer.join()
        if self.left_out:
            self._tell(f"{self.left_out} frames were left out of clips: they came faster than they could be written")

    def _is_over(self, clip: _Clip, seconds: float) -> bool:
        too_long = seconds > clip.start + self.options.longest
        return too_long or (not clip.goes_on and seconds > clip.last_end + self.options.post_roll)

    def _remember(self, kept: _Kept) -> None:
        self._ring.append(kept)
        self._ring_size += len(kept.content)
        bound = self.options.memory // 2
        while self._ring[0].seconds < kept.seconds - self._before or (self._ring_size > bound and len(self._ring) > 1):
            oldest = self._ring.popleft()
            self._ring_size -= len(oldest.content)
            if oldest.seconds >= kept.seconds - self._before and not self._is_short:
                self._is_short = True
                self._tell(f"clips begin later than they should: {self._before:g} s of frames need over {bound} bytes")

    def _open(self, event: Event) -> None:
        first = event.start - self.options.pre_roll
        frames = [kept for kept in self._ring if kept.seconds >= first]
        self._clip = _Clip(_name(event), frames[0].seconds if frames else event.start)
        self._jobs.put(self._clip)
        self._account(sum(len(kept.content) for kept in frames))  # they are in the ring anyway
        for kept in frames:
            self._jobs.put(kept)

    def _enqueue(self, kept: _Kept) -> None:
        size = len(kept.content)
        with self._freed:
            if self._wait:
                while not self._freed.wait_for(lambda: self._has_room(size), timeout=1.0) and self._writer.is_alive():
                    pass
            elif not self._has_room(size):
                self.left_out += 1
                return
            self._queue_size += size
        self._jobs.put(kept)

    def _has_room(self, size: int) -> bool:
        return self._queue_size == 0 or self._queue_size + size <= self.options.memory // 2

    def _account(self, size: int) -> None:
        with self._freed:
            self._queue_size += size
            self._freed.notify_all()

    # In the writer's thread

    def _write(self) -> None:
        for clip in iter(self._jobs.get, None):
            assert isinstance(clip, _Clip)
            frames = self._frames()
            try:
                self._write_clip(clip, frames)
                self._discard_old()
            except (RecordingError, cv2.error) as error:
                self._tell(f"a clip was not written: {error}")
                for _ in frames:  # the rest of it
                    pass

    def _write_clip(self, clip: _Clip, frames: Iterator[_Kept]) -> None:
        path, last = self.options.folder / f"{clip.name}.mp4", clip.start
        with Recorder(path, self._fps) as recorder:
            for kept in frames:
                image = cv2.imdecode(np.frombuffer(kept.content, np.uint8), cv2.IMREAD_COLOR)
                recorder.write(np.asarray(image, np.uint8), kept.seconds)
                last = kept.seconds
            if recorder.finish() is not None:
                self._describe(path, clip, last)
                self.written += 1

    def _frames(self) -> Iterator[_Kept]:
        """The frames of the clip that was opened last, until it is whole."""
        while isinstance(kept := self._jobs.get(), _Kept):
            try:
                yield kept
            finally:
                self._account(-len(kept.content))

    def _describe(self, path: Path, clip: _Clip, last: float) -> None:
        events = sorted(clip.events.values(), key=lambda event: event.start)
        found: dict[str, Any] = {
            "clip": path.name,
            "source": self._source,
            "start": round(clip.start, 3),
            "end": round(last, 3),
            "fps": self._fps,
            "events": [event.to_dict() for event in events],
        }
        try:
            with whole(path.with_suffix(".json")) as place:
                place.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise RecordingError(f"{path.with_suffix('.json')} cannot be written: {error.strerror}") from error

    def _discard_old(self) -> None:
        """Removes the oldest clips: only what is named like one, and has its JSON beside it."""
        if self.options.keep is None:
            return
        found = [path for path in self.options.folder.glob("*.mp4") if _NAME.fullmatch(path.stem)]
        pairs = [path for path in found if path.with_suffix(".json").is_file()]
        with contextlib.suppress(OSError):  # removed by someone else meanwhile
            pairs.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
            for path in pairs[: -self.options.keep]:
                path.with_suffix(".json").unlink()
                path.unlink()


def _name(event: Event) -> str:
    """The label as it may be in a file's name, and when the event began."""
    label = re.sub(r"[^\w.-]+", "_", event.label).lstrip(".") or "event"
    if event.started_at is None:
        return f"{label[:40]}-{event.start:.3f}s"
    moment = datetime.fromtimestamp(event.started_at, timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    return f"{label[:40]}-{moment[:-3]}Z"
