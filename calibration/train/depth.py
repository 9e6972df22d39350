"""Stochastic depth ("drop path"): a training that leaves out whole blocks at random."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vmp_edge.models import VideoMamba

from .parallel import Part


class DropPath:
    """Leave out the mixers of single clips at random, so that no block relies on all others (arXiv 1603.09382).

    The share of clips that skip a block grows linearly from 0 in the first block to the rate in the last one. What is
    not left out is scaled up, so that its mean over many steps stays the same.

    Args:
        model: Gets a hook in each block; in evaluation mode they do nothing.
        rate: Share of clips that skip the last block, from 0 to below 1.
        seed: Decides, with the number of the step, which clips skip which blocks.
    """

    def __init__(self, model: VideoMamba, rate: float, seed: int) -> None:
        self.seed = seed
        self.kept = 1 - np.linspace(0, rate, model.options.depth)[:, None]
        self.factors: Tensor | None = None
        if rate:
            for index, block in enumerate(model.blocks()):
                block.mixer.register_forward_hook(partial(self._scale, index))

    def draw(self, step: int, clips: int, part: Part, device: torch.device) -> None:
        """Draw for a step which clips skip which blocks.

        Args:
            step: Number of the step within the run.
            clips: Clips of the batch in this process.
            part: This process's part of the batch. The draw is that of the whole batch, so that it does not depend on
                the number of processes.
            device: Where the model is.
        """
        rng = np.random.default_rng([self.seed, step])
        stays = rng.random((len(self.kept), clips * part.count)) < self.kept
        factors = (stays / self.kept)[:, part.of(clips * part.count)]
        self.factors = torch.from_numpy(factors.astype(np.float32)).to(device)

    def _scale(self, index: int, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not module.training or self.factors is None:
            return output
        return output * self.factors[index, :, None, None].to(output.dtype)
