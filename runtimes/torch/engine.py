"""The engine `torch`: the source model in PyTorch, what every other engine is compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.models import VideoMamba, load_checkpoint


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
        self._features = bundle.manifest.features > 0

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Executes the model: float32 (B, 3, T, S, S) to logits (B, classes), with features (B, classes + C)."""
        with torch.inference_mode():
            features = self._module.forward_features(torch.from_numpy(video))
            logits = self._module.head(features)
            given: npt.NDArray[np.float32] = (torch.cat([logits, features], 1) if self._features else logits).numpy()
        return given

    def close(self) -> None:
        """Releases the weights."""
        del self._module


def _load(bundle: Bundle) -> VideoMamba:
    try:
        return load_checkpoint(bundle.program)
    except VmpError as error:
        raise BundleError(f"{bundle.program} is not a program of the engine 'torch' ({error})") from error
