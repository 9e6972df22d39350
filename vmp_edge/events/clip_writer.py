"""Writing clips to a folder, in a thread of its own: the clips' names, their JSON files, and removing old clips."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..files import whole
from ..sources import Message
from ..view.recording import Recorder, RecordingError
from .detector import Event

_CLIP_NAME = re.compile(r".+-(\d{8}T\d{6}\.\d{3}Z|\d+\.\d{3}s)")  # what `clip_name` makes


def clip_name(event: Event) -> str:
    """Return a clip's file name without its suffix: the label, and when the event began.

    Characters that a file name should not have become `_` in the label.
    """
    label = re.sub(r"[^\w.-]+", "_", event.label).lstrip(".") or "event"
    if event.started_at is None:
        return f"{label[:40]}-{event.start:.3f}s"
    moment = datetime.fromtimestamp(event.started_at, timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    return f"{label[:40]}-{moment[:-3]}Z"


@dataclass(frozen=True)
class CompressedFrame:
    """A frame as JPEG, and its time in seconds since the source's first frame."""

    content: bytes
    seconds: float

    @property
    def size(self) -> int:
        """Bytes that the frame takes."""
        return len(self.content)


@dataclass
class Clip:
    """A clip that is being recorded.

    Args:
        name: File name without its suffix.
        start: Time of its first frame, in seconds since the source's first frame.
        events: The events in the clip by their numbers, each in its newest state.
    """

    name: str
    start: float
    events: dict[int, Event] = field(default_factory=dict)

    @property
    def goes_on(self) -> bool:
        """True while an event of the clip goes on."""
        return any(not event.ended for event in self.events.values())

    @property
    def last_end(self) -> float:
        """When the last of the ended events ended."""
        return max(event.end for event in self.events.values() if event.end is not None)


class ClipWriter:
    """Writes clips in a thread of its own, from frames that wait in a queue of limited size.

    A clip that cannot be written is reported with a message and skipped.

    Args:
        folder: The clips' folder. It is made if it does not exist.
        fps: Frames per second of the clips.
        source: The source's name, for the JSON files.
        tell: Called with a message when a clip cannot be written, or when frames were left out.
        keep: Number of clips to keep in the folder. None keeps all.
        memory: Bytes that the waiting frames may take.
        wait: Whether `add` waits for room in the queue. Otherwise frames without room are left out.

    Attributes:
        written: Number of clips that were written.
        left_out: Number of frames that were left out.

    Raises:
        RecordingError: The folder cannot be made or written to.
    """

    def __init__(
        self, folder: Path, fps: float, source: str, tell: Message, *, keep: int | None, memory: int, wait: bool
    ) -> None:
        self.written = self.left_out = 0
        self._folder, self._fps, self._source, self._tell = folder, fps, source, tell
        self._keep, self._memory, self._wait = keep, memory, wait
        self._noted = False
        self._queue_size = 0  # bytes
        self._freed = threading.Condition()
        # A clip, its frames, and the clip again as the mark of its end. None ends the thread.
        self._jobs: queue.SimpleQueue[CompressedFrame | Clip | None] = queue.SimpleQueue()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f"clips cannot be written to {folder}: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise RecordingError(f"clips cannot be written to {folder}: no permission")
        self._thread = threading.Thread(target=self._write, name="vmp-edge clips", daemon=True)
        self._thread.start()

    def begin(self, clip: Clip, frames: Sequence[CompressedFrame]) -> None:
        """Begin a clip with frames that are in memory anyway, so that they never have to wait for room."""
        self._jobs.put(clip)
        self._account(sum(frame.size for frame in frames))
        for frame in frames:
            self._jobs.put(frame)

    def add(self, frame: CompressedFrame) -> None:
        """Add a frame to the clip that was begun last."""
        with self._freed:
            if self._wait:
                while not self._freed.wait_for(lambda: self._has_room(frame), timeout=1.0) and self._thread.is_alive():
                    pass
            elif not self._has_room(frame):
                self.left_out += 1
                return
            self._queue_size += frame.size
        self._jobs.put(frame)

    def end(self, clip: Clip) -> None:
        """End the clip that was begun last. Its events must not change afterwards."""
        self._jobs.put(clip)

    def close(self) -> None:
        """Write what waits, and end the thread. The last clip must have been ended."""
        self._jobs.put(None)
        self._thread.join()
        if self.left_out:
            self._tell(f"{self.left_out} frames were left out of clips: they came faster than they could be written")

    def _has_room(self, frame: CompressedFrame) -> bool:
        return self._queue_size == 0 or self._queue_size + frame.size <= self._memory

    def _account(self, size: int) -> None:
        with self._freed:
            self._queue_size += size
            self._freed.notify_all()

    # The methods below run in the writer's thread.

    def _write(self) -> None:
        for clip in iter(self._jobs.get, None):
            assert isinstance(clip, Clip)
            frames = self._frames()
            try:
                self._write_clip(clip, frames)
                self._remove_old()
            except (RecordingError, cv2.error) as error:
                self._tell(f"a clip was not written: {error}")
                for _ in frames:  # skip the rest of the clip
                    pass

    def _frames(self) -> Iterator[CompressedFrame]:
        """Yield the frames of the clip that was begun last, until it ends."""
        while isinstance(frame := self._jobs.get(), CompressedFrame):
            try:
                yield frame
            finally:
                self._account(-frame.size)

    def _write_clip(self, clip: Clip, frames: Iterator[CompressedFrame]) -> None:
        path, last = self._folder / f"{clip.name}.mp4", clip.start
        with Recorder(path, self._fps, self._note) as recorder:
            for frame in frames:
                image = cv2.imdecode(np.frombuffer(frame.content, np.uint8), cv2.IMREAD_COLOR)
                recorder.write(np.asarray(image, np.uint8), frame.seconds)
                last = frame.seconds
            if recorder.finish() is not None:
                self._write_description(path, clip, last)
                self.written += 1

    def _note(self, text: str) -> None:
        """Tell once what the clips are lacking, not for each clip."""
        if not self._noted:
            self._noted = True
            self._tell(text)

    def _write_description(self, path: Path, clip: Clip, last: float) -> None:
        """Write the JSON file of a clip. `last` is the time of the clip's last frame in seconds."""
        events = sorted(clip.events.values(), key=lambda event: event.start)
        description: dict[str, Any] = {
            "clip": path.name,
            "source": self._source,
            "start": round(clip.start, 3),
            "end": round(last, 3),
            "fps": self._fps,
            "events": [event.to_dict() for event in events],
        }
        target = path.with_suffix(".json")
        try:
            with whole(target) as temporary:
                temporary.write_text(json.dumps(description, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise RecordingError(f"{target} cannot be written: {error.strerror}") from error

    def _remove_old(self) -> None:
        """Remove the oldest clips. Only a file that is named like a clip and has its JSON file beside it is a clip."""
        if self._keep is None:
            return
        named = [path for path in self._folder.glob("*.mp4") if _CLIP_NAME.fullmatch(path.stem)]
        clips = [path for path in named if path.with_suffix(".json").is_file()]
        with contextlib.suppress(OSError):  # another program removed one meanwhile
            clips.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
            for path in clips[: -self._keep]:
                path.with_suffix(".json").unlink()
                path.unlink()
