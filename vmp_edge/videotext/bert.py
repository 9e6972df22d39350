"""The text encoder of video-text models: the first layers of a BERT, and the projection (VideoMamba, video_mm)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import CheckpointError, UsageError

EPS = 1e-12  # of BERT's layer norms
HEAD_WIDTH = 64  # of every published BERT
MASKED = -10_000.0  # added to the scores of padding
_LAYER = re.compile(r"encoder\.layer\.(\d{1,3})\.")


class TextEncoder:
    """Computes the features of texts.

    The published model lets later layers look at the video. A text's feature is taken from the layers before these.

    Args:
        tensors: The tensors of a video-text model, float32, under their published names.
        path: Their file, for messages.
        heads: The number of attention heads; None takes heads of `HEAD_WIDTH` channels.

    Raises:
        CheckpointError: A tensor is missing, or has another shape than it should.
        UsageError: The number of heads does not divide the channels.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path, heads: int | None = None) -> None:
        self._path = path
        whole = any(name.startswith("text_encoder.bert.") for name in tensors)  # as pretraining saves it
        prefix = "text_encoder.bert." if whole else "text_encoder."
        self._tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self._tensors |= {name: tensors[name] for name in ("text_proj.weight", "text_proj.bias") if name in tensors}
        self._words = self._get("embeddings.word_embeddings.weight", 2)
        self._positions = self._get("embeddings.position_embeddings.weight", 2)
        self.width = self._words.shape[1]
        if heads is None and self.width % HEAD_WIDTH:
            raise UsageError(
                f"{path}: its text encoder has {self.width} channels, which {HEAD_WIDTH} does not divide: give the "
                "number of its attention heads with --text-heads"
            )
        self._heads = heads or self.width // HEAD_WIDTH
        if heads is not None and (heads < 1 or self.width % heads):
            raise UsageError(f"{heads} attention heads do not divide the {self.width} channels of {path}")
        self.layers = self._count_layers()

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the encoder knows."""
        return int(self._words.shape[0])

    @property
    def longest(self) -> int:
        """The largest number of tokens of a text."""
        return int(self._positions.shape[0])

    @property
    def size(self) -> int:
        """P, the number of features of a text."""
        return int(self._get("text_proj.weight", 2).shape[0])

    @torch.no_grad()
    def features(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the unit features (N, P) of texts, each given as the numbers of its tokens."""
        length = max(map(len, texts))
        ids = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts])
        mask = torch.tensor([[1.0] * len(text) + [0.0] * (length - len(text)) for text in texts])
        return F.normalize(self._linear("text_proj", self.tokens(ids, mask)[:, 0]), dim=-1)

    @torch.no_grad()
    def tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the last of the layers' tokens (N, L, C), for tokens' numbers (N, L), and a mask (N, L) of ones."""
        hidden = self._words[ids] + self._get("embeddings.token_type_embeddings.weight", 2)[0]
        hidden = self._norm("embeddings.LayerNorm", hidden + self._positions[: ids.shape[1]])
        added = (1 - mask.float())[:, None, None] * MASKED
        for index in range(self.layers):
            layer = f"encoder.layer.{index}"
            hidden = self._attend(f"{layer}.attention", hidden, added)
            inner = F.gelu(self._linear(f"{layer}.intermediate.dense", hidden))
            outer = self._linear(f"{layer}.output.dense", inner)
            hidden = self._norm(f"{layer}.output.LayerNorm", outer + hidden)
        return hidden

    def _attend(self, name: str, hidden: Tensor, added: Tensor) -> Tensor:
        query, key, value = (
            self._linear(f"{name}.self.{part}", hidden).reshape(*hidden.shape[:2], self._heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(self.width // self._heads) + added
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return self._norm(f"{name}.output.LayerNorm", self._linear(f"{name}.output.dense", mixed) + hidden)

    def _count_layers(self) -> int:
        """Return the number of layers before the first one that looks at the video."""
        numbers = {int(match[1]) for name in self._tensors if (match := _LAYER.match(name))}
        fused = {int(match[1]) for name in self._tensors if "crossattention" in name and (match := _LAYER.match(name))}
        count = min(fused) if fused else len(numbers)
        if not set(range(count)) <= numbers or not count:
            raise CheckpointError(f"{self._path}: layers of its text encoder are missing")
        return count

    def _linear(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._get(f"{name}.weight", 2), self._get(f"{name}.bias", 1)
        if weight.shape != (len(bias), x.shape[-1]):
            raise CheckpointError(f"{self._path}: {name} of its text encoder does not fit the rest")
        return F.linear(x, weight, bias)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._get(f"{name}.weight", 1), self._get(f"{name}.bias", 1)
        if not len(weight) == len(bias) == x.shape[-1]:
            raise CheckpointError(f"{self._path}: {name} of its text encoder does not fit the rest")
        return F.layer_norm(x, (x.shape[-1],), weight, bias, EPS)

    def _get(self, name: str, dimensions: int) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self._path}: has no text encoder that is whole: it lacks {name}")
        if tensor.ndim != dimensions:
            raise CheckpointError(f"{self._path}: {name} of its text encoder has {tensor.ndim} dimensions")
        return tensor
