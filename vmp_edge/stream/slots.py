"""What a frame ring keeps of a frame: the prepared frame, or what becomes tokens, from when a window first takes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..preprocessing import Preprocessing

Embed = Callable[
    [npt.NDArray[np.float32]], npt.NDArray[np.float32]
]  # a prepared frame (3, S, S) -> its shares of tokens (P, N, C)


class Slots(Protocol):
    """Places for frames, allocated once. One slot is written or read at a time, different ones may be at once."""

    nbytes: int

    def __len__(self) -> int:
        """How many places there are."""
        ...

    def write(self, slot: int, frame: npt.NDArray[np.uint8], bgr: bool) -> None:
        """Keeps a frame (H, W, 3), whatever was there before."""
        ...

    def read(self, slot: int, out: npt.NDArray[np.float32], index: int) -> None:
        """Writes what the engine takes of the frame where the window has it; the window's frames in order.

        Args:
            slot: Where the frame is kept.
            out: The window.
            index: Which of its frames this is.
        """
        ...


class FrameSlots:
    """Prepared frames, float32 (3, S, S).

    Args:
        preprocessing: How they are prepared, when they come.
        count: How many there is room for.
    """

    def __init__(self, preprocessing: Preprocessing, count: int) -> None:
        self._preprocessing = preprocessing
        self._frames = np.empty((count, 3, preprocessing.image_size, preprocessing.image_size), np.float32)
        self.nbytes = self._frames.nbytes

    def __len__(self) -> int:
        return len(self._frames)

    def write(self, slot: int, frame: npt.NDArray[np.uint8], bgr: bool) -> None:
        """As `Slots`."""
        self._preprocessing.frame(frame, self._frames[slot], bgr)

    def read(self, slot: int, out: npt.NDArray[np.float32], index: int) -> None:
        """As `Slots`; `out` is float32 (3, T, S, S)."""
        out[:, index] = self._frames[slot]


class TokenSlots:
    """Shares of tokens, float32 (P, N, C); in the same memory, until a window takes the frame, the resized picture.

    So a frame is resized when it comes, and normalised and embedded once, when it is first read; one that no window
    takes, because of a stride, of timestamps or of a slow recogniser, never is.

    Args:
        preprocessing: How they are prepared.
        count: How many there is room for.
        embed: Makes a prepared frame's shares of tokens; its argument is not to be kept.
        shape: (P, N, C): N frames make a token, by the sum of the first one's first share, the second one's second, ...
    """

    def __init__(self, preprocessing: Preprocessing, count: int, embed: Embed, shape: tuple[int, int, int]) -> None:
        self._preprocessing, self._embed = preprocessing, embed
        size = preprocessing.image_size
        tokens, pixels = 4 * math.prod(shape), 3 * size * size
        memory = np.empty((count, -(-max(tokens, pixels) // 64) * 64), np.uint8)  # float32 needs multiples of 4
        self._tokens = memory[:, :tokens].view(np.float32).reshape(count, *shape)
        self._pictures = memory[:, :pixels]
        self._pending: list[tuple[int, int, bool] | None] = [None] * count  # height, width, BGR of what is a picture
        self._frame = np.empty((3, size, size), np.float32)
        self.nbytes = memory.nbytes + self._frame.nbytes

    def __len__(self) -> int:
        return len(self._tokens)

    def write(self, slot: int, frame: npt.NDArray[np.uint8], bgr: bool) -> None:
        """As `Slots`."""
        picture = self._preprocessing.picture(frame)
        self._pictures[slot, : picture.size].reshape(picture.shape)[...] = picture
        self._pending[slot] = (*picture.shape[:2], bgr)

    def read(self, slot: int, out: npt.NDArray[np.float32], index: int) -> None:
        """As `Slots`; `out` is float32 (P, T / N, C). For one thread at a time.

        Raises:
            VmpError: The engine failed; the frame is as it was.
        """
        if pending := self._pending[slot]:
            height, width, bgr = pending
            picture = self._pictures[slot, : height * width * 3].reshape(height, width, 3)
            self._preprocessing.frame(picture, self._frame, bgr)
            self._tokens[slot] = self._embed(self._frame)
            self._pending[slot] = None
        shares = self._tokens[slot]
        token, place = divmod(index, shares.shape[1])
        if place == 0:
            out[:, token] = shares[:, 0]
        else:
            out[:, token] += shares[:, place]
