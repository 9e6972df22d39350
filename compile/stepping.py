"""Step a bundle of a causal model through a clip, and compare its states with the source model's."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.manifest import Manifest
from vmp_edge.engines import Engine, StepEngine
from vmp_edge.errors import BuildError
from vmp_edge.formatting import number, plain

Array = npt.NDArray[np.float32]

STEPS = 3  # steps of a clip on which a bundle is compared, for each frame of a clip in training
# How far numbers of a state may be from the source model's, as a share of the state's largest. What a state loses may
# take more steps than a build has to show in the outputs.
TOLERANCE = 1e-3


def frames_of(manifest: Manifest) -> int:
    """Return the frames of a clip on which a bundle is compared: of a causal model, those of many steps."""
    return STEPS * manifest.frames * manifest.tubelet if manifest.states else manifest.frames


def run(engine: Engine, video: Array, manifest: Manifest) -> tuple[Array, Array]:
    """Run a bundle on one clip.

    Args:
        engine: Runs the bundle.
        video: float32 (1, 3, F, S, S), with F of `frames_of`.
        manifest: The bundle's manifest.

    Returns:
        The outputs, (1, outputs), or of a causal model those of each step, (steps, outputs); and the state after the
        last step, (1, n), with n 0 for other models.
    """
    state = np.zeros((1, manifest.state_size), np.float32)
    if not manifest.states:
        return engine.run(video), state
    stepping, outputs = cast(StepEngine, engine), []
    for start in range(0, video.shape[2], manifest.tubelet):
        output, state = stepping.step(video[:, :, start : start + manifest.tubelet], state)
        outputs.append(output)
    return np.concatenate(outputs), state


def compare(states: Array, expected: Array, manifest: Manifest) -> dict[str, Any]:
    """Compare the states after clips, (clips, n), with the source model's.

    Returns:
        The manifest's ``parity.states``: the largest difference, and what is accepted.

    Raises:
        BuildError: A state differs by more than `TOLERANCE` of its largest number, or is not finite.
    """
    largest, start = 0.0, 0
    for name, shape in manifest.states.items():
        stop = start + math.prod(shape)
        size = float(np.abs(expected[:, start:stop]).max())
        difference = float(np.abs(states[:, start:stop] - expected[:, start:stop]).max()) / (size or 1.0)
        if not difference <= TOLERANCE:
            raise BuildError(
                f"the bundle's state {name} differs from the source model's by {number(difference, 2)} of its largest "
                f"number, more than {plain(TOLERANCE)}; nothing was written"
            )
        largest, start = max(largest, difference), stop
    return {"max_difference": float(f"{largest:.3g}"), "tolerance": TOLERANCE}
