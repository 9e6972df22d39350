"""What engines of lowered programs share: one program a bundle, or two where the embedding is one of its own."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.reading import Bundle

from .folding import embed_all, fold


class Program(Protocol):
    """A lowered program that takes one array and gives one; not for use from two threads at once."""

    def run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Executes it.

        Args:
            inputs: float32, C-contiguous, of the program's shape.

        Returns:
            float32, of any shape: who asks knows it. New memory.

        Raises:
            VmpError: the program failed.
        """
        ...

    def close(self) -> None:
        """Frees it."""
        ...


class ProgramEngine:
    """A `vmp_edge.engines.FrameEngine` of programs.

    Args:
        bundle: what they are of.
        program: from the frames of one clip (T / tubelet, 3 * tubelet, H, W), or from its tokens
            (T / tubelet, P, C) where there is an embedding, to the logits.
        embedding: from a frame (1, 3, H, W) to its shares of tokens (1, P, tubelet * C).
    """

    def __init__(self, bundle: Bundle, program: Program, embedding: Program | None) -> None:
        self._tubelet = int(bundle.manifest.model["tubelet_size"])
        self._program, self._embedding = program, embedding
        if embedding is not None:
            self._frame_tokens = bundle.manifest.frame_tokens

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits of a batch of clips.

        Args:
            video: float32 (B, 3, T, H, W), normalised. Frames that lie frame by frame in memory, as the frame ring
                writes them, are read in place.

        Returns:
            float32 (B, classes).

        Raises:
            VmpError: the program failed.
        """
        inputs = fold(video, self._tubelet) if self._embedding is None else embed_all(video, self._tubelet, self.embed)
        return self.run_tokens(inputs)

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As `vmp_edge.engines.FrameEngine`."""
        assert self._embedding is not None
        tokens, channels = self._frame_tokens
        return self._embedding.run(frame[None]).reshape(tokens, self._tubelet, channels)

    def run_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As `vmp_edge.engines.FrameEngine`."""
        return np.concatenate([self._program.run(one) for one in tokens])

    def close(self) -> None:
        """Free the programs; `run` must not be called afterwards."""
        self._program.close()
        if self._embedding is not None:
            self._embedding.close()


def one_line(error: Exception) -> str:
    """The text of a library's error without line breaks, cut where it is long."""
    return " ".join(str(error).split())[:300] or type(error).__name__
