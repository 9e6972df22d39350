"""The base class of the engines that run lowered programs.

A bundle has one program, or two if the embedding is a program of its own.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.reading import Bundle

from .folding import embed_all, fold


class Program(Protocol):
    """A lowered program that takes one array and returns one. Only one thread at a time may use it."""

    def run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Execute the program.

        Args:
            inputs: float32, C-contiguous, in the shape of the program's input.

        Returns:
            float32 in new memory. The number of elements counts, not the shape: the caller reshapes the array.

        Raises:
            VmpError: The program failed.
        """
        ...

    def close(self) -> None:
        """Free the program."""
        ...


class ProgramEngine:
    """A `vmp_edge.engines.FrameEngine` that runs one or two programs.

    Args:
        bundle: The bundle that has the programs.
        program: The program that computes the logits. It takes the folded frames of one clip
            (T / tubelet, 3 * tubelet, H, W) or, if there is an embedding, the clip's tokens (T / tubelet, P, C).
        embedding: The program that takes a frame (1, 3, H, W) and computes its shares of the tokens,
            (1, P, tubelet * C); None if `program` embeds by itself.
    """

    def __init__(self, bundle: Bundle, program: Program, embedding: Program | None) -> None:
        self._tubelet = bundle.manifest.tubelet
        self._program, self._embedding = program, embedding
        if embedding is not None:
            self._frame_tokens = bundle.manifest.frame_tokens

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute the logits of a batch of clips.

        Args:
            video: float32 (B, 3, T, H, W), normalised. A video whose frames follow each other in memory, as the frame
                ring writes them, is read in place.

        Returns:
            Logits, float32 (B, classes); from a bundle with features (B, classes + C), with the features last.

        Raises:
            VmpError: The program failed.
        """
        inputs = fold(video, self._tubelet) if self._embedding is None else embed_all(video, self._tubelet, self.embed)
        return self.run_tokens(inputs)

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embed one frame; see `vmp_edge.engines.FrameEngine`."""
        assert self._embedding is not None
        tokens, channels = self._frame_tokens
        return self._embedding.run(frame[None]).reshape(tokens, self._tubelet, channels)

    def run_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Execute the model from its tokens on; see `vmp_edge.engines.FrameEngine`."""
        return np.concatenate([self._program.run(clip) for clip in tokens])

    def close(self) -> None:
        """Free the programs. The engine must not be used afterwards."""
        self._program.close()
        if self._embedding is not None:
            self._embedding.close()


def one_line(error: Exception) -> str:
    """Return the text of a library's error in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
