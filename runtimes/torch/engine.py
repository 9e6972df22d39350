"""The engine `torch`: the source model in PyTorch, what every other engine is compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from vmp_edge.bundle import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.models import load_checkpoint


class TorchEngine:
    """Runs a bundle whose program is `{"model": state dict, "options": {...}}`, as `torch.save` writes it.

    Args:
        bundle: An opened bundle.
        threads: For PyTorch's intra-operator threads, which the whole process shares; None leaves them alone.

    Raises:
        BundleError: The program is not such a file, or its weights do not fit its options.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._module = _load(bundle)

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Executes the model: float32 (B, 3, T, S, S) to logits (B, classes)."""
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self._module(torch.from_numpy(video)).float().numpy()
        return logits

    def close(self) -> None:
        """Releases the weights."""
        del self._module


def _load(bundle: Bundle) -> torch.nn.Module:
    try:
        return load_checkpoint(bundle.program)
    except VmpError as error:
        raise BundleError(f"{bundle.program} is not a program of the engine 'torch' ({error})") from error
