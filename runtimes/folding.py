"""Videos as lowered programs take them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def fold(video: npt.NDArray[np.float32], tubelet: int) -> npt.NDArray[np.float32]:
    """A batch of videos as the programs' inputs, one each.

    Args:
        video: float32 (B, 3, T, H, W). Frames that lie frame by frame in memory, as the frame ring writes them, are
            not copied.
        tubelet: frames of a token.

    Returns:
        float32 (B, T / tubelet, 3 * tubelet, H, W), C-contiguous.
    """
    batch, channels, frames, height, width = video.shape
    return np.ascontiguousarray(video.transpose(0, 2, 1, 3, 4), dtype=np.float32).reshape(
        batch, frames // tubelet, tubelet * channels, height, width
    )


def embed_all(
    video: npt.NDArray[np.float32], tubelet: int, embed: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """The tokens of a batch of videos, embedded frame by frame.

    Args:
        video: float32 (B, 3, T, H, W).
        tubelet: frames of a token.
        embed: of an engine, a frame (3, H, W) to its shares of tokens (P, tubelet, C).

    Returns:
        float32 (B, T / tubelet, P, C).
    """
    return add_up(np.stack([np.stack([embed(frame) for frame in clip]) for clip in fold(video, 1)]), tubelet)


def add_up(shares: npt.NDArray[np.float32], tubelet: int) -> npt.NDArray[np.float32]:
    """Tokens (B, T / tubelet, P, C) of their frames' shares (B, T, P, tubelet, C)."""
    tokens = shares[:, ::tubelet, :, 0]
    for place in range(1, tubelet):
        tokens = tokens + shares[:, place::tubelet, :, place]
    return np.ascontiguousarray(tokens)
