"""The engine `torch`: runs the source model in PyTorch. All other engines are compared with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.machine import default_threads
from vmp_edge.models import VideoMamba, load_checkpoint


class TorchEngine:
    """The engine of a bundle whose program is `{"model": state dict, "options": {...}}`, written by `torch.save`.

    Args:
        bundle: An opened bundle.
        threads: Number of PyTorch's threads inside an operator, which the whole process shares. None leaves the number
            as it is, but for at most `default_threads`.

    Raises:
        BundleError: The program is not such a file, or its weights do not fit its options.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        # PyTorch knows the process's CPUs at its import, but no limit of a container.
        torch.set_num_threads(threads or min(torch.get_num_threads(), default_threads()))
        self._module = _load(bundle)
        self._features = bundle.manifest.features > 0

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Execute the model.

        Args:
            video: float32 (B, 3, T, S, S), normalised.

        Returns:
            Logits, float32 (B, classes); from a bundle with features (B, classes + C), with the features last.
        """
        with torch.inference_mode():
            features = self._module.forward_features(torch.from_numpy(video))
            return self._outputs(self._module.head(features), features)

    def step(
        self, frames: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Recognise one step of each stream; see `vmp_edge.engines.StepEngine`."""
        with torch.inference_mode():
            logits, features, after = self._module.step(torch.from_numpy(frames), torch.from_numpy(state))
            return self._outputs(logits, features), after.numpy()

    def _outputs(self, logits: Tensor, features: Tensor) -> npt.NDArray[np.float32]:
        """Return the bundle's outputs. Without a head, the logits are the features themselves."""
        both = self._features and self._module.options.num_classes
        outputs: npt.NDArray[np.float32] = (torch.cat([logits, features], 1) if both else logits).numpy()
        return outputs

    def close(self) -> None:
        """Release the weights."""
        del self._module


def _load(bundle: Bundle) -> VideoMamba:
    with bundle.take(bundle.manifest.program) as file:
        try:
            return load_checkpoint(file.path)
        except VmpError as error:
            reason = str(error).removeprefix(f"{file.path}: ").removeprefix(f"{Path(file.path)}: ")
            raise BundleError(f"{bundle.program} is not a program of the engine 'torch' ({reason})") from error
