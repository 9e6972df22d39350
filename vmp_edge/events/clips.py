"""Video clips of events, from some seconds before the start to some seconds after the end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..sources import Message
from .clip_writer import Clip, ClipWriter, CompressedFrame, clip_name
from .detector import Event

_JPEG_QUALITY = 90  # of the frames in memory
_LATENCY = 2.0  # seconds by which a window's latency may delay the report of a start


@dataclass(frozen=True)
class ClipOptions:
    """Which clips to record, and where.

    Args:
        folder: The clips' folder. It is made if it does not exist.
        pre_roll: Seconds to record before an event's start.
        post_roll: Seconds to record after an event's end. A clip may be longer, because it goes on until the end is
            certain.
        keep: Number of clips to keep: the oldest clips of the folder are removed. None keeps all.
        longest: Seconds after which a clip ends although its event goes on.
        memory: Bytes that compressed frames may take: one half for the pre-roll, the other half for frames that wait
            to be written.

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


class _PreRoll:
    """The newest frames, kept in memory for the beginning of the next clip.

    Args:
        seconds: How far back the frames go.
        memory: Bytes that the frames may take. If they would take more, the oldest are dropped.

    Attributes:
        frames: The frames, oldest first.
        size: Bytes that the frames take.
        is_short: Whether frames had to be dropped for want of memory.
    """

    def __init__(self, seconds: float, memory: int) -> None:
        self.frames: deque[CompressedFrame] = deque()
        self.size = 0
        self.is_short = False
        self.seconds, self.memory = seconds, memory

    def append(self, frame: CompressedFrame) -> None:
        """Add the newest frame, and drop the frames that are too old or too many."""
        self.frames.append(frame)
        self.size += frame.size
        first = frame.seconds - self.seconds
        while self.frames[0].seconds < first or (self.size > self.memory and len(self.frames) > 1):
            oldest = self.frames.popleft()
            self.size -= oldest.size
            self.is_short |= oldest.seconds >= first


class ClipRecorder:
    """Keeps the newest frames in memory, and writes a clip when an event starts.

    A clip is a video `LABEL-TIME.mp4` and a description `LABEL-TIME.json`, which is written last. Frames are compressed
    in the caller's thread and written in another thread. Events share a clip if they overlap, or if one starts within
    the post-roll of another. A clip that cannot be written is reported and skipped; recognition goes on.

    Args:
        options: Which clips to record, and where.
        fps: Frames per second of the clips.
        late: Seconds from an event's start until it is reported: the rule's hold, and the time between two windows.
        source: The source's name, for the JSON.
        tell: Called with a message when a clip cannot be written, or when frames are left out for want of memory.
        wait: Whether to wait when frames come faster than they can be written, as for files. Otherwise they are left
            out, as for cameras.

    Raises:
        RecordingError: The folder cannot be made or written to.
    """

    def __init__(
        self, options: ClipOptions, fps: float, late: float, source: str, tell: Message, wait: bool = False
    ) -> None:
        self.options = options
        self._tell = tell
        self._has_warned = False  # that the pre-roll is short
        self._pre_roll = _PreRoll(options.pre_roll + late + _LATENCY, options.memory // 2)
        self._clip: Clip | None = None
        self._writer = ClipWriter(
            options.folder, fps, source, tell, keep=options.keep, memory=options.memory // 2, wait=wait
        )

    @property
    def written(self) -> int:
        """Number of clips that were written."""
        return self._writer.written

    @property
    def left_out(self) -> int:
        """Number of frames that were left out because they came faster than they could be written."""
        return self._writer.left_out

    def add(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        """Add a frame.

        Args:
            image: Frame, uint8 (H, W, 3) BGR. The array itself is not kept.
            seconds: Time since the source's first frame.
        """
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
        frame = CompressedFrame(content, seconds)
        if self._clip is not None and self._is_over(self._clip, seconds):
            self.cut()
        self._pre_roll.append(frame)
        if self._pre_roll.is_short and not self._has_warned:
            self._has_warned = True
            length, memory = self._pre_roll.seconds, self._pre_roll.memory
            self._tell(f"clips begin later than they should: {length:g} s of frames need over {memory} bytes")
        if self._clip is not None:
            self._writer.add(frame)

    def cut(self) -> None:
        """End the open clip, if there is one, because no more frames will come, or not soon."""
        clip, self._clip = self._clip, None
        if clip is not None:
            self._writer.end(clip)

    def tell(self, event: Event) -> None:
        """Note that an event has started or ended. A start opens a clip, unless one is open."""
        if not event.ended and self._clip is None:
            first = event.start - self.options.pre_roll
            frames = [frame for frame in self._pre_roll.frames if frame.seconds >= first]
            self._clip = Clip(clip_name(event), frames[0].seconds if frames else event.start)
            self._writer.begin(self._clip, frames)
        if self._clip is not None and (not event.ended or event.number in self._clip.events):
            self._clip.events[event.number] = event

    def close(self) -> None:
        """End the open clip, and wait until everything is written."""
        self.cut()
        self._writer.close()

    def _is_over(self, clip: Clip, seconds: float) -> bool:
        too_long = seconds > clip.start + self.options.longest
        return too_long or (not clip.goes_on and seconds > clip.last_end + self.options.post_roll)
