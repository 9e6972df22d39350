"""The base class of the engines that run lowered programs.

A bundle has one program, or two if the embedding is a program of its own. That of a causal model runs one step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.manifest import Manifest
from vmp_edge.bundle.reading import Bundle

from .folding import embed_all, fold

Array = npt.NDArray[np.float32]


class Program(Protocol):
    """A lowered program. Only one thread at a time may use it.

    It takes one array and gives one, or, for a step of a causal model, takes frames and states and gives outputs and
    states.
    """

    def run(self, *inputs: Array) -> Sequence[Array]:
        """Execute the program.

        Args:
            inputs: float32, C-contiguous, in the shapes of the program's inputs. They are only read.

        Returns:
            float32 in new memory, one array for each of the program's outputs. The number of elements counts, not the
            shape: the caller reshapes the arrays.

        Raises:
            VmpError: The program failed.
        """
        ...

    def close(self) -> None:
        """Free the program."""
        ...


class Stepper:
    """Runs a program of one step of one stream.

    The program keeps nothing of a step, so that one serves any number of streams.

    Args:
        program: The program. It takes the folded frames of a step (1, 3 * tubelet, H, W) and the states in their order,
            and gives the outputs and the states after the step.
        manifest: The manifest of its bundle, which names the states.
    """

    def __init__(self, program: Program, manifest: Manifest) -> None:
        self._program, self._tubelet = program, manifest.tubelet
        self._shapes = tuple(manifest.states.values())
        self._size = manifest.state_size

    def step(self, frames: Array, state: Array) -> tuple[Array, Array]:
        """Recognise one step of each stream; see `vmp_edge.engines.StepEngine`."""
        outputs, after = [], np.empty((len(frames), self._size), np.float32)
        for row, folded in enumerate(fold(frames, self._tubelet)):
            before = np.ascontiguousarray(state[row], np.float32)
            output, *states = self._program.run(folded, *_parts(before, self._shapes))
            for part, values in zip(_parts(after[row], self._shapes), states, strict=True):
                part[...] = values.reshape(part.shape)
            outputs.append(output.reshape(1, -1))
        return np.concatenate(outputs), after

    def run(self, video: Array) -> Array:
        """Return the outputs after the last step of videos (B, 3, T, H, W), each of which starts a stream."""
        state = np.zeros((len(video), self._size), np.float32)
        for start in range(0, video.shape[2], self._tubelet):
            outputs, state = self.step(video[:, :, start : start + self._tubelet], state)
        return outputs


class ProgramEngine:
    """A `vmp_edge.engines.FrameEngine` that runs one or two programs, and a `StepEngine` for causal models.

    Args:
        bundle: The bundle that has the programs.
        program: The program that computes the logits. It takes the folded frames of one clip
            (T / tubelet, 3 * tubelet, H, W) or, if there is an embedding, the clip's tokens (T / tubelet, P, C). The
            program of a causal model is the one that `Stepper` takes.
        embedding: The program that takes a frame (1, 3, H, W) and computes its shares of the tokens,
            (1, P, tubelet * C); None if `program` embeds by itself.
    """

    def __init__(self, bundle: Bundle, program: Program, embedding: Program | None) -> None:
        self._tubelet = bundle.manifest.tubelet
        self._program, self._embedding = program, embedding
        self._stepper = Stepper(program, bundle.manifest) if bundle.manifest.states else None
        if embedding is not None:
            self._frame_tokens = bundle.manifest.frame_tokens

    def run(self, video: Array) -> Array:
        """Compute the logits of a batch of clips.

        Args:
            video: float32 (B, 3, T, H, W), normalised. A video whose frames follow each other in memory, as the frame
                ring writes them, is read in place. A causal model goes through it step by step, from its beginning.

        Returns:
            Logits, float32 (B, classes); from a bundle with features (B, classes + C), with the features last.

        Raises:
            VmpError: The program failed.
        """
        if self._stepper is not None:
            return self._stepper.run(video)
        inputs = fold(video, self._tubelet) if self._embedding is None else embed_all(video, self._tubelet, self.embed)
        return self.run_tokens(inputs)

    def step(self, frames: Array, state: Array) -> tuple[Array, Array]:
        """Recognise one step of each stream; see `vmp_edge.engines.StepEngine`."""
        assert self._stepper is not None
        return self._stepper.step(frames, state)

    def embed(self, frame: Array) -> Array:
        """Embed one frame; see `vmp_edge.engines.FrameEngine`."""
        assert self._embedding is not None
        tokens, channels = self._frame_tokens
        (shares,) = self._embedding.run(frame[None])
        return shares.reshape(tokens, self._tubelet, channels)

    def run_tokens(self, tokens: Array) -> Array:
        """Execute the model from its tokens on; see `vmp_edge.engines.FrameEngine`."""
        return np.concatenate([self._program.run(clip)[0] for clip in tokens])

    def close(self) -> None:
        """Free the programs. The engine must not be used afterwards."""
        self._program.close()
        if self._embedding is not None:
            self._embedding.close()


def _parts(vector: Array, shapes: Sequence[tuple[int, ...]]) -> Iterator[Array]:
    """Cut a contiguous vector into views, one after the other."""
    start = 0
    for shape in shapes:
        stop = start + math.prod(shape)
        yield vector[start:stop].reshape(shape)
        start = stop


def one_line(error: Exception) -> str:
    """Return the text of a library's error in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
