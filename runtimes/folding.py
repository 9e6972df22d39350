"""Arrange videos in the layout that lowered programs take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def fold(video: npt.NDArray[np.float32], tubelet: int) -> npt.NDArray[np.float32]:
    """Fold the frames of each token into channels, which is the input of lowered programs.

    Args:
        video: float32 (B, 3, T, H, W). A video whose frames follow each other in memory, as the frame ring writes
            them, is not copied.
        tubelet: Number of frames of a token.

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
    """Embed a batch of videos frame by frame.

    Args:
        video: float32 (B, 3, T, H, W).
        tubelet: Number of frames of a token.
        embed: The engine's embedding. It takes a frame (3, H, W) and returns the frame's shares of the tokens,
            (P, tubelet, C).

    Returns:
        The tokens, float32 (B, T / tubelet, P, C).
    """
    return add_up(np.stack([np.stack([embed(frame) for frame in clip]) for clip in fold(video, 1)]), tubelet)


def add_up(shares: npt.NDArray[np.float32], tubelet: int) -> npt.NDArray[np.float32]:
    """Add up the shares of the frames to tokens.

    Args:
        shares: float32 (B, T, P, tubelet, C). Place i of the axis `tubelet` is the share of a frame that is the i-th
            of its token.
        tubelet: Number of frames of a token.

    Returns:
        The tokens, float32 (B, T / tubelet, P, C), C-contiguous.
    """
    tokens = shares[:, ::tubelet, :, 0]
    for place in range(1, tubelet):
        tokens = tokens + shares[:, place::tubelet, :, place]
    return np.ascontiguousarray(tokens)
