"""The memory that a stream allocates for a recogniser: the frame ring, and the engine's input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..bundle.manifest import Manifest
from ..preprocessing import empty_video
from ..recognizer import Outputs, Recognizer
from .ring import FrameRing, slots_for
from .slots import FrameSlots, TokenSlots
from .window import Window


def make_ring(recognizer: Recognizer, window: Window, capacity: int) -> FrameRing:
    """Make a frame ring for a recogniser's windows.

    The ring keeps tokens if the bundle embeds frame by frame, and prepared frames otherwise.

    Args:
        recognizer: The recogniser.
        window: The windows that are read.
        capacity: Least number of frames to keep.
    """
    preprocessing = recognizer.manifest.preprocessing
    if recognizer.frame_tokens is None:
        return FrameRing(preprocessing, window, capacity)
    return FrameRing(preprocessing, window, capacity, recognizer.embed, recognizer.frame_tokens)


def ring_memory(manifest: Manifest, window: Window) -> int:
    """Return the bytes that a stream's frame ring takes for a bundle, without loading it.

    Args:
        manifest: The bundle's manifest.
        window: The windows that are read.
    """
    slots = slots_for(window)
    if manifest.embedding is None:
        return FrameSlots.memory(manifest.image_size, slots)
    tokens, channels = manifest.frame_tokens
    return TokenSlots.memory(manifest.image_size, slots, (tokens, manifest.tubelet, channels))


def make_input(recognizer: Recognizer) -> tuple[npt.NDArray[np.float32], Callable[[], Outputs]]:
    """Allocate the engine's input.

    Returns:
        The array that `FrameRing.read` writes a window into, and a function that recognises what the array holds.
    """
    if recognizer.frame_tokens is None:
        video = empty_video(recognizer.frames, recognizer.image_size)
        return video[0], lambda: recognizer.outputs(video)
    count, tubelet, channels = recognizer.frame_tokens
    tokens = np.empty((1, recognizer.frames // tubelet, count, channels), np.float32)
    return tokens[0].swapaxes(0, 1), lambda: recognizer.token_outputs(tokens)


def ring_serves_both(first: Recognizer, second: Recognizer) -> bool:
    """Return whether a ring of prepared frames serves both. Tokens belong to one model and never do."""
    if first.frame_tokens is not None or second.frame_tokens is not None:
        return False
    return first.frames == second.frames and first.manifest.preprocessing == second.manifest.preprocessing
