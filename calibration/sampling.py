"""Which frames of a video make its clips."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.prediction import sample_evenly
from vmp_edge.sources.clips import UnusableError

MODES = ("uniform", "dense", "trained", "published")
_SLOWEST = 0.9  # share of the model's frame rate: a slower video has too few frames for a dense clip


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video make its clips. The same file always gives the same frames.

    Attributes:
        mode: ``uniform``: the video is divided into T equal parts, and a clip takes one frame of each. A single clip
            takes the middle frames, like `Recognizer.predict`; several clips take different places in the parts.
            ``dense``: a clip is a window at the model's frame rate, as a camera would give it, and the windows are
            spread over the video.
            ``trained``: as the model's clips were sampled in training: ``dense`` if its manifest says how, and
            ``uniform`` if it does not, or if the video is too short or too slow for a window.
            ``published``: like ``uniform``, with the frame numbers of the published evaluation (VideoMamba,
            video_sm/datasets): with n clips, clip k takes the frame at (k + 1) / (n + 1) of each part, rounded down.
        clips: Number of clips to take of a video.
        crops: Number of squares that each clip is seen through, spread along the longer side of the frames: 1 is the
            centre, 3 are left, centre and right. Only for models whose frames are cropped.

    Raises:
        UsageError: The mode is unknown, or there are no clips or no crops.
    """

    mode: str = "uniform"
    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"sampling must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.clips < 1:
            raise UsageError(f"there must be at least one clip of a video, not {self.clips}")
        if self.crops < 1:
            raise UsageError(f"there must be at least one crop of a clip, not {self.crops}")

    def indices(self, available: int, fps: float, frames: int, frame_rate: float | None) -> list[list[int]]:
        """Return the frame numbers of each clip.

        Args:
            available: Number of the video's frames.
            fps: The video's frames per second.
            frames: T, the frames of a clip.
            frame_rate: Frames per second of a dense clip; None takes consecutive frames.

        Raises:
            UnusableError: The video is too short or too slow for a clip.
        """
        if self.mode == "dense":
            return self._dense(available, fps, frames, frame_rate)
        if self.mode == "published":
            return self._published(available, frames)
        if self.mode == "trained" and frame_rate is not None:
            with contextlib.suppress(UnusableError):
                return self._dense(available, fps, frames, frame_rate)
        return self._uniform(available, frames)

    def by_time(self, frame_rate: float | None) -> bool:
        """Return whether clips are taken by the times of a video's frames.

        Args:
            frame_rate: See `indices`.
        """
        return self.mode in ("dense", "trained") and frame_rate is not None

    def _uniform(self, available: int, frames: int) -> list[list[int]]:
        _check_length(available, frames)
        parts = 2 * self.clips * frames
        return [
            [(2 * self.clips * i + 2 * j + 1) * available // parts for i in range(frames)] for j in range(self.clips)
        ]

    def _published(self, available: int, frames: int) -> list[list[int]]:
        _check_length(available, 1)
        part = (available - 1) / frames
        return [
            [min(round(part * i) + int(part / (self.clips + 1) * (k + 1)), available - 1) for i in range(frames)]
            for k in range(self.clips)
        ]

    def _dense(self, available: int, fps: float, frames: int, frame_rate: float | None) -> list[list[int]]:
        spacing = fps / frame_rate if frame_rate else 1.0
        if spacing < _SLOWEST:
            raise UnusableError(f"too slow: {fps:g} frames per second, the model takes {frame_rate:g}")
        offsets = np.round(np.arange(frames) * max(spacing, 1.0)).astype(int)
        span = int(offsets[-1]) + 1
        _check_length(available, span)
        starts = sorted(set(sample_evenly(available - span + 1, self.clips)))
        return [(start + offsets).tolist() for start in starts]


def _check_length(available: int, needed: int) -> None:
    if available < needed:
        raise UnusableError(f"too short: {available} frames, a clip takes {needed}")


def crops(clip: NDArray[np.uint8], count: int) -> list[NDArray[np.uint8]]:
    """Return squares of a clip, spread along the longer side of its frames.

    Args:
        clip: uint8 (T, H, W, 3).
        count: Number of squares; 1 takes the centre.

    Returns:
        Views of the clip, uint8 (T, min(H, W), min(H, W), 3). The first begins at the left or upper edge, and the last
        ends at the other one.
    """
    height, width = clip.shape[1:3]
    side, room = min(height, width), abs(height - width)
    starts = [room // 2] if count == 1 else [room * i // (count - 1) for i in range(count)]
    if width > height:
        return [clip[:, :, start : start + side] for start in starts]
    return [clip[:, start : start + side] for start in starts]
