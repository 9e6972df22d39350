"""The slots of a frame ring: `FrameSlots` keep prepared frames, `TokenSlots` keep frames as tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..preprocessing import Preprocessing

# From a prepared frame (3, S, S) to its shares of tokens (P, N, C).
Embed = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


class Slots(Protocol):
    """Places for frames, allocated once. Different slots may be written and read at once, but each by one thread."""

    nbytes: int

    def __len__(self) -> int:
        """Return the number of places."""
        ...

    def write(self, slot: int, frame: npt.NDArray[np.uint8], bgr: bool) -> None:
        """Keep a frame, uint8 (H, W, 3), in place of the slot's last frame."""
        ...

    def read(self, slot: int, out: npt.NDArray[np.float32], index: int) -> None:
        """Write the engine's input of one frame into a window. Call it for the window's frames in order.

        Args:
            slot: Slot of the frame.
            out: The window.
            index: Place of the frame in the window.
        """
        ...


class FrameSlots:
    """Slots for prepared frames, float32 (3, S, S). Frames are prepared when they come.

    Args:
        preprocessing: How frames are prepared.
        count: Number of slots.
    """

    def __init__(self, preprocessing: Preprocessing, count: int) -> None:
        self._preprocessing = preprocessing
        self._frames = np.empty((count, 3, preprocessing.image_size, preprocessing.image_size), np.float32)
        self.nbytes = self._frames.nbytes

    @staticmethod
    def memory(image_size: int, count: int) -> int:
        """Return the bytes of slots for frames of S pixels, without making them."""
        return count * 4 * 3 * image_size * image_size

    def __len__(self) -> int:
        return len(self._frames)

    def write(self, slot: int, frame: npt.NDArray[np.uint8], bgr: bool) -> None:
        """Prepare a frame, uint8 (H, W, 3), into a slot."""
        self._preprocessing.frame(frame, self._frames[slot], bgr)

    def read(self, slot: int, out: npt.NDArray[np.float32], index: int) -> None:
        """Copy a prepared frame into a window, float32 (3, T, S, S)."""
        out[:, index] = self._frames[slot]


class TokenSlots:
    """Slots for frames as shares of tokens, float32 (P, N, C).

    A frame is resized when it comes. It is normalised and embedded once, when a window first reads it; until then the
    same memory holds the resized picture. A frame that no window takes, because of a stride, of timestamps or of a slow
    recogniser, is never embedded.

    Args:
        preprocessing: How frames are prepared.
        count: Number of slots.
        embed: Makes a prepared frame's shares of tokens. It must not keep its argument.
        shape: (P, N, C). N frames make a token: the sum of the first frame's first share, the second frame's second
            share, and so on.
    """

    def __init__(self, preprocessing: Preprocessing, count: int, embed: Embed, shape: tuple[int, int, int]) -> None:
        self._preprocessing, self._embed = preprocessing, embed
        size = preprocessing.image_size
        tokens, pixels = 4 * math.prod(shape), 3 * size * size
        memory = np.empty((count, self._bytes_of_a_slot(size, shape)), np.uint8)
        self._tokens = memory[:, :tokens].view(np.float32).reshape(count, *shape)
        self._pictures = memory[:, :pixels]
        # Height, width and BGR of the slots' pictures that are not embedded yet.
        self._pending: list[tuple[int, int, bool] | None] = [None] * count
        self._frame = np.empty((3, size, size), np.float32)
        self.nbytes = memory.nbytes + self._frame.nbytes

    @staticmethod
    def _bytes_of_a_slot(image_size: int, shape: tuple[int, int, int]) -> int:
        tokens, pixels = 4 * math.prod(shape), 3 * image_size * image_size
        return -(-max(tokens, pixels) // 64) * 64  # float32 needs multiples of 4

    @classmethod
    def memory(cls, image_size: int, count: int, shape: tuple[int, int, int]) -> int:
        """Return the bytes of slots for frames of S pixels as tokens of a shape, without making them."""
        return count * cls._bytes_of_a_slot(image_size, shape) + 4 * 3 * image_size * image_size

    def __len__(self) -> int:
        return len(self._tokens)

    def write(self, slot: int, frame: npt.NDArray[np.uint8], bgr: bool) -> None:
        """Resize a frame, uint8 (H, W, 3), into a slot."""
        picture = self._preprocessing.picture(frame)
        self._pictures[slot, : picture.size].reshape(picture.shape)[...] = picture
        self._pending[slot] = (*picture.shape[:2], bgr)

    def read(self, slot: int, out: npt.NDArray[np.float32], index: int) -> None:
        """Add a frame's shares to a window's tokens, float32 (P, T / N, C). Call it from one thread at a time.

        Raises:
            VmpError: The engine failed. The slot keeps the picture.
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
