"""How fast each of a model's parameters learns: groups for the optimiser, and the schedule of the learning rate."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from vmp_edge.models import VideoMamba

# Filters over hundreds of correlated pixels take much smaller steps than matrices over a hundred channels.
PATCH_RATE = 0.02

_WITHOUT_DECAY = ("embed", "embedding", "token", "A_log", "A_b_log")


def schedule(progress: float) -> float:
    """Return the learning rate as a share of the highest: a short warm-up, constant for a quarter, half a cosine to 0.

    Args:
        progress: Share of the run that is done, 0 to 1.
    """
    return min(1.0, progress / 0.02) * 0.5 * (1 + math.cos(math.pi * max(0.0, progress - 0.25) / 0.75))


def parameter_groups(model: VideoMamba, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Group the parameters for the optimiser: with and without weight decay, and by how fast they learn.

    Args:
        model: The model to train.
        weight_decay: For matrices, not for biases, norms, embeddings and decay rates.
        layer_decay: Factor of the learning rate from a layer to the one below it (BEiT, arXiv 2106.08254). The head
            and the final norm learn at the full rate, the embeddings at the lowest.

    Returns:
        Groups with ``params``, ``weight_decay`` and ``rate``, a factor for the learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(weight_decay, 1.0): [], (0.0, 1.0): []}
    depth = model.options.depth
    for name, parameter in model.named_parameters():
        rate = float(layer_decay ** (depth + 1 - _layer(name, depth)))
        decay = weight_decay if parameter.ndim > 1 and not name.endswith(_WITHOUT_DECAY) else 0.0
        if name == "patch_embed.proj.weight":
            rate, decay = min(rate, PATCH_RATE), 0.0
        groups.setdefault((decay, rate), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate": rate}
        for (decay, rate), parameters in groups.items()
        if parameters
    ]


def _layer(name: str, depth: int) -> int:
    """Return a parameter's layer: 0 for the embeddings, 1 to `depth` for the blocks, one more for what follows."""
    if name.startswith("layers."):
        return int(name.split(".")[1]) + 1
    return depth + 1 if name.startswith(("norm_f", "head", "pool_norm", "vision_proj")) else 0
