"""The frame ring: where a capture thread leaves prepared frames and a recogniser picks its windows.

Every slot is allocated once. A pushed frame is resized and normalised straight into a slot, and a window is gathered
once, straight into the engine's input; both happen outside the lock, so neither side waits for the other's pixels.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing, check_frame
from vmp_edge.slots import Embed, FrameSlots, Slots, TokenSlots

SAMPLINGS = ("uniform", "recent", "motion")

_MIN_SPACING = 0.24  # in window periods: frames closer than a quarter (and a little, for jitter) would never be chosen
_RECENT_POWER = 1.5  # of the distance into the past: the newest frames of 8 are 0.38 spacings apart, the oldest 1.45
_TIME_SHARE = 0.25  # of sampling by motion: no two frames of a window are further apart than four spacings


@dataclass(frozen=True)
class Window:
    """Which frames make up what the model sees at once, and how often it looks.

    Args:
        frames: T, how many frames.
        stride: Every how many-th frame; or
        fps: frames per second, by the timestamps: the frames nearest in time, whatever the camera's own rate.
        hop: How many frames come in between one window and the next.
        sampling: `uniform`: equally spaced. The other two choose from the same span of time: `recent` takes frames
            closer together towards the present; `motion` takes more where more changes.

    Raises:
        UsageError: A value is out of range, or not exactly one of stride and fps is given.
    """

    frames: int
    stride: int | None = 1
    fps: float | None = None
    hop: int = 4
    sampling: str = "uniform"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UsageError(f"a window needs at least 1 frame, not {self.frames}")
        if self.hop < 1:
            raise UsageError(f"hop must be at least 1 frame, not {self.hop}")
        if (self.stride is None) == (self.fps is None):
            raise UsageError("a window is spaced by a stride in frames or by frames per second: give one of them")
        if self.stride is not None and self.stride < 1:
            raise UsageError(f"stride must be at least 1 frame, not {self.stride}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"frames per second must be positive, not {self.fps}")
        if self.sampling not in SAMPLINGS:
            raise UsageError(f"sampling must be one of {', '.join(SAMPLINGS)}, not {self.sampling!r}")

    def slower(self, factor: float) -> Window:
        """The same with frames `factor` times as far apart, to the next whole stride."""
        if self.fps is not None:
            return replace(self, fps=self.fps / factor)
        assert self.stride is not None
        return replace(self, stride=max(1, round(self.stride * factor)))

    @property
    def capacity(self) -> int:
        """How many frames must be kept for a window to be found in them."""
        if self.stride is not None:
            return (self.frames - 1) * self.stride + 1
        return math.ceil((self.frames - 1) / self._closest) + 2

    @property
    def min_spacing(self) -> float:
        """Seconds that kept frames are at least apart: what comes closer is passed over, unprepared."""
        return self._closest / self.fps if self.fps is not None else 0.0

    @cached_property
    def _closest(self) -> float:
        """The least distance of kept frames, in spacings."""
        return float(min(_MIN_SPACING, *-np.diff(self._offsets))) if self.frames > 1 else _MIN_SPACING

    @cached_property
    def _offsets(self) -> npt.NDArray[np.float64]:
        """How far before the newest frame each frame is, in spacings, oldest first: T - 1 to 0."""
        past = np.arange(self.frames - 1, -1, -1, dtype=np.float64)
        if self.sampling != "recent" or self.frames == 1:
            return past
        return (self.frames - 1) * (past / (self.frames - 1)) ** _RECENT_POWER

    def select(self, timestamps: Sequence[float], changes: Sequence[float] | None = None) -> list[int] | None:
        """Chooses the frames of the newest window.

        Args:
            timestamps: Of the frames at hand, in seconds, oldest first.
            changes: How much moves in each of them, for sampling by motion; None takes them equally spaced.

        Returns:
            T indices, oldest first, the last one the newest frame; None if what is at hand does not reach back far
            enough. By fps, a frame is chosen twice if the camera is slower than the window.
        """
        chosen = self._by_stride(len(timestamps)) if self.fps is None else self._by_time(timestamps)
        if chosen is None or self.sampling != "motion" or changes is None:
            return chosen
        first = chosen[0]
        if len(timestamps) - first <= self.frames:  # a slow camera: there is nothing to choose from
            return chosen
        return [first + index for index in spread(timestamps[first:], changes[first:], self.frames)]

    def _by_stride(self, available: int) -> list[int] | None:
        assert self.stride is not None
        newest = available - 1
        if newest < (self.frames - 1) * self.stride:
            return None
        back = np.rint(self._offsets * self.stride).astype(int)
        back = np.maximum(back, np.arange(self.frames - 1, -1, -1))  # no frame twice
        return [int(index) for index in newest - back]

    def _by_time(self, timestamps: Sequence[float]) -> list[int] | None:
        assert self.fps is not None
        newest, period = len(timestamps) - 1, 1.0 / self.fps
        if newest < 0 or timestamps[0] > timestamps[newest] - (self.frames - 1.05) * period:  # 0.05: rounding, jitter
            return None
        times = np.asarray(timestamps)
        wanted = times[newest] - period * self._offsets
        after = np.clip(np.searchsorted(times, wanted), 1, max(newest, 1))
        nearer_before = wanted - times[after - 1] <= times[np.minimum(after, newest)] - wanted
        return [int(index) for index in np.where(nearer_before, after - 1, np.minimum(after, newest))]


def spread(timestamps: Sequence[float], changes: Sequence[float], frames: int) -> list[int]:
    """Chooses frames so that between any two neighbours about as much happens.

    What happens is change times time, summed up from the oldest frame, and to a quarter plain time; the frames are
    those where the sum reaches equal parts of its total.

    Args:
        timestamps: In seconds, oldest first; more than `frames` of them.
        changes: How much moves in each frame.
        frames: How many to choose, 2 or more.

    Returns:
        Indices, oldest first, none twice: the first frame, the newest, and `frames - 2` between them.
    """
    steps = np.diff(np.asarray(timestamps, np.float64))
    if steps.sum() <= 0:
        steps = np.ones(len(steps))
    happens = steps * np.maximum(np.asarray(changes, np.float64)[1:], 0)
    share = steps / steps.sum()
    if happens.sum() > 0:
        share = _TIME_SHARE * share + (1 - _TIME_SHARE) * happens / happens.sum()
    reached = np.concatenate(([0.0], np.cumsum(share)))
    nearest = np.abs(reached[None] - np.linspace(0, reached[-1], frames)[:, None]).argmin(1)
    nearest[-1] = len(steps)
    order = np.arange(frames)
    chosen = np.maximum.accumulate(nearest - order) + order  # each at least one after the one before it ...
    return [int(index) for index in np.minimum(chosen, len(steps) - order[::-1])]  # ... and room for those after it


@dataclass
class _Kept:
    """A frame in the ring."""

    sequence: int  # how many frames were pushed before it
    timestamp: float
    slot: int
    change: float  # how much moves in it, the frames passed over before it included
    seen: bool = False  # a window has reached over it


@dataclass(frozen=True)
class WindowRead:
    """What `FrameRing.read` gathered: the sequence number and timestamp (s) of each frame, oldest first."""

    sequences: tuple[int, ...]
    timestamps: tuple[float, ...] = field(repr=False)


class FrameRing:
    """Prepared frames, the newest `window.capacity` of them. Every method may be called from any thread.

    When it is full, the oldest frame goes. One that no window ever reached over counts as dropped: the recogniser was
    too slow for it. A frame still being gathered is never written over, because there are as many spare slots as a
    window has frames.

    Args:
        preprocessing: How frames are prepared.
        window: What is read; sets the capacity.
        capacity: Keep so many frames, if that is more: for a window of another spacing, by `change`.
        embed: Makes a frame's shares of tokens: windows are gathered of tokens then, and a frame is embedded when the
            first window takes it, in the thread that reads. None gathers prepared frames.
        tokens: (P, N, C), the shape of what `embed` gives.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        window: Window,
        capacity: int = 0,
        embed: Embed | None = None,
        tokens: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.window = window
        self._capacity = max(capacity, window.capacity)
        slots = self._capacity + window.frames + 1  # kept, being gathered, being written
        self._slots: Slots = (
            FrameSlots(preprocessing, slots) if embed is None else TokenSlots(preprocessing, slots, embed, tokens)
        )
        self._free = list(range(slots))
        self._kept: deque[_Kept] = deque()
        self._pinned: set[int] = set()  # slots that a window is being gathered from
        self._changed = threading.Condition()
        self._writing = threading.Lock()  # one frame is prepared at a time, so that they stay in order
        self._reading = threading.Lock()
        self._pushed = self._dropped = 0
        self._read_at: int | None = None  # how many frames had come in when the last window was picked
        self._last_timestamp = -math.inf
        self._passed_over = 0.0  # the largest change of the frames passed over since the last one kept
        self._closed = False

    @property
    def pushed(self) -> int:
        """How many frames came in."""
        return self._pushed

    @property
    def nbytes(self) -> int:
        """Memory of all slots."""
        return self._slots.nbytes

    @property
    def dropped(self) -> int:
        """How many frames went without ever having been within a window."""
        return self._dropped

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float, bgr: bool = False, change: float = 0.0) -> None:
        """Prepares a frame into a slot. Never waits for a window to be read.

        Args:
            frame: uint8 (H, W, 3); not kept.
            timestamp: Seconds, on any clock that does not run backwards.
            bgr: The channels are blue, green, red.
            change: How much moves in it, for sampling by motion and for `skip`.

        Raises:
            UsageError: The frame has another shape or dtype, or the timestamp is before the last one.
        """
        check_frame(frame)
        with self._writing:
            if not timestamp >= self._last_timestamp:
                raise UsageError(
                    f"timestamps must not run backwards ({timestamp} after {self._last_timestamp}): "
                    "reset the stream when its source starts again"
                )
            self._last_timestamp = timestamp
            slot = self._reserve(timestamp)
            if slot is not None:
                try:
                    self._slots.write(slot, frame, bgr)
                except BaseException:
                    with self._changed:
                        self._free.append(slot)
                    raise
            self._commit(slot, timestamp, change)

    def due(self) -> bool:
        """Whether a window is complete that ends `hop` frames or more after the last one that was read."""
        with self._changed:
            return self._due()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until a window is due, the ring is closed or `timeout` seconds are over; returns whether one is due."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._due(), timeout)
            return self._due()

    def read(self, out: npt.NDArray[np.float32]) -> WindowRead | None:
        """Gathers the newest window.

        Args:
            out: float32 (3, T, S, S) to write into, or (P, T / N, C) for tokens.

        Returns:
            Which frames it is made of; None, and `out` as it was, if there are too few as yet.

        Raises:
            VmpError: Embedding a frame failed.
        """
        with self._reading:
            chosen = self._pin()
            if chosen is None:
                return None
            try:
                for index, kept in enumerate(chosen):
                    self._slots.read(kept.slot, out, index)
            finally:
                self._unpin()
        return WindowRead(tuple(kept.sequence for kept in chosen), tuple(kept.timestamp for kept in chosen))

    def skip(self, still: Callable[[float, float], bool]) -> WindowRead | None:
        """Passes over the newest window, as if it had been read, if nothing moves in it.

        Args:
            still: Told the largest change of the frames that the window reaches over and the newest one's timestamp,
                in seconds; says whether to pass it over.

        Returns:
            The window that was passed over; None if none was.
        """
        with self._changed:
            indices = self._select()
            if indices is None:
                return None
            newest = self._kept[-1]
            motion = max(self._passed_over, *(kept.change for kept in islice(self._kept, indices[0], None)))
            if not still(motion, newest.timestamp):
                return None
            chosen = [self._kept[index] for index in indices]
            self._mark(chosen)
        return WindowRead(tuple(kept.sequence for kept in chosen), tuple(kept.timestamp for kept in chosen))

    def change(self, window: Window) -> None:
        """Reads other windows from now on, of the frames that are there.

        Raises:
            UsageError: It has another number of frames, or reaches further back than the ring.
        """
        if window.frames != self.window.frames or window.capacity > self._capacity:
            raise UsageError(f"{window} does not fit this ring of {self._capacity} frames: make another one")
        with self._changed:
            self.window = window
            self._changed.notify_all()

    def successor(self, ring: FrameRing) -> FrameRing:
        """An empty ring that counts on where this one is; push no more to this one."""
        ring._pushed, ring._dropped, ring._last_timestamp = self._pushed, self._dropped, self._last_timestamp
        return ring

    def clear(self) -> None:
        """Forgets all frames, so that no window reaches over a gap; timestamps may start again. The counts go on."""
        with self._writing, self._changed:
            self._free += [kept.slot for kept in self._kept if kept.slot not in self._pinned]
            self._kept.clear()
            self._read_at = None
            self._last_timestamp = -math.inf
            self._passed_over = 0.0

    def close(self) -> None:
        """Wakes everyone who waits, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _reserve(self, timestamp: float) -> int | None:
        """Takes a free slot: there always is one; None for a frame to pass over."""
        with self._changed:
            if self._kept and timestamp - self._kept[-1].timestamp < self.window.min_spacing:
                return None
            return self._free.pop()

    def _commit(self, slot: int | None, timestamp: float, change: float) -> None:
        with self._changed:
            self._passed_over = max(self._passed_over, change)
            if slot is not None:
                # Only now: until the new frame is whole, the oldest one is needed for a window.
                if len(self._kept) == self._capacity:
                    self._let_oldest_go()
                self._kept.append(_Kept(self._pushed, timestamp, slot, self._passed_over))
                self._passed_over = 0.0
            self._pushed += 1
            if self._due():
                self._changed.notify_all()

    def _let_oldest_go(self) -> None:
        oldest = self._kept.popleft()
        late = self._read_at is None or self._pushed >= self._read_at + self.window.hop
        self._dropped += late and not oldest.seen  # if not late, a long hop leaves it out by choice
        if oldest.slot not in self._pinned:  # else `_unpin` frees it
            self._free.append(oldest.slot)

    def _due(self) -> bool:
        if self._read_at is not None:
            nothing_new = not self._kept or self._kept[-1].sequence < self._read_at
            if nothing_new or self._pushed - self._read_at < self.window.hop:
                return False
        return self._select() is not None

    def _select(self) -> list[int] | None:
        changes = [kept.change for kept in self._kept] if self.window.sampling == "motion" else None
        return self.window.select([kept.timestamp for kept in self._kept], changes)

    def _pin(self) -> list[_Kept] | None:
        """Chooses the newest window and keeps its slots from being reused."""
        with self._changed:
            indices = self._select()
            if indices is None:
                return None
            chosen = [self._kept[index] for index in indices]
            self._pinned = {kept.slot for kept in chosen}
            self._mark(chosen)
            return chosen

    def _mark(self, chosen: list[_Kept]) -> None:
        # What a long hop leaves out between windows by choice was not dropped either.
        first = min(chosen[0].sequence, self._pushed - self.window.hop)
        for kept in self._kept:
            kept.seen |= kept.sequence >= first
        self._read_at = self._pushed

    def _unpin(self) -> None:
        with self._changed:
            kept = {entry.slot for entry in self._kept}
            self._free += [slot for slot in self._pinned if slot not in kept]
            self._pinned = set()
