"""`Pictures`: a camera's newest picture as JPEG, encoded once for all viewers and only while somebody watches."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor

import cv2
import numpy as np
import numpy.typing as npt

LONGEST_SIDE = 800  # pixels; larger pictures are shrunk
QUALITY = 80
_MIN_INTERVAL = 0.06  # seconds: a preview needs no more than some 16 pictures per second


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W, 3) BGR as JPEG, with at most 800 pixels on the longer side."""
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes()


class Pictures:
    """The newest picture of one camera.

    `put` is for the capture thread and costs next to nothing. The other methods are for the event loop.

    Args:
        loop: The event loop.
        executor: Encodes the pictures.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._loop = loop
        self._executor = executor
        self._newest: tuple[int, npt.NDArray[np.uint8] | None] = (0, None)
        self._put_at = -1.0
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._encoded: tuple[int, asyncio.Future[bytes]] | None = None

    def put(self, image: npt.NDArray[np.uint8]) -> None:
        """Take the newest frame, uint8 (H, W, 3) BGR, in place of the last one. At most some 16 a second are taken."""
        now = time.monotonic()
        if now - self._put_at < _MIN_INTERVAL:
            return
        self._put_at = now
        self._newest = (self._newest[0] + 1, image)
        if self._waiting:
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def arrival(self, number: int) -> None:
        """Wait until there is a picture with a higher number. Pictures are numbered from 1."""
        self._waiting += 1  # before the look at the picture, because `put` writes first and then looks for waiters
        try:
            while self._newest[0] <= number:
                self._arrived.clear()
                if self._newest[0] <= number:
                    await self._arrived.wait()
        finally:
            self._waiting -= 1

    async def newest(self) -> tuple[int, bytes]:
        """Return the newest picture's number and its JPEG. There must be a picture."""
        number, image = self._newest
        if self._encoded is None or self._encoded[0] != number:
            assert image is not None
            self._encoded = (number, self._loop.run_in_executor(self._executor, encode, image))
        return number, await asyncio.shield(self._encoded[1])
