"""The text encoder of video-text models: the first layers of a BERT, and the projection (VideoMamba, video_mm).

The package `transformers` runs the BERT. This module finds its sizes in the checkpoint's tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from ..errors import CheckpointError, UsageError
from ..models.checkpoint import require_fit

HEAD_WIDTH = 64  # of every published BERT
ENCODER, PROJECTION = "text encoder", "projection of texts"  # in messages
_LAYER = re.compile(r"encoder\.layer\.(\d{1,3})\.")


class TextEncoder:
    """Computes the features of texts.

    The published model lets later layers look at the video. A text's feature is taken from the layers before these.

    Args:
        tensors: The tensors of a video-text model, float32, under their published names.
        path: Their file, for messages.
        heads: The number of attention heads, which no tensor says; None takes heads of `HEAD_WIDTH` channels.

    Attributes:
        config: The sizes of the BERT, which has only the layers that are used.
        layers: The number of these layers.
        size: P, the number of features of a text.

    Raises:
        CheckpointError: A tensor is missing, or has another shape than it should.
        UsageError: The number of heads does not divide the channels.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path, heads: int | None = None) -> None:
        whole = any(name.startswith("text_encoder.bert.") for name in tensors)  # as pretraining saves it
        bert = _inside(tensors, "text_encoder.bert." if whole else "text_encoder.")
        projection = _inside(tensors, "text_proj.")
        self.config = _config(bert, path, heads)
        self.layers: int = self.config.num_hidden_layers
        self.size, _ = _shape(projection, "weight", path, PROJECTION)
        with torch.device("meta"):  # the checkpoint's tensors take the place of all others
            self._bert = BertModel(self.config, add_pooling_layer=False).eval()
            self._projection = nn.Linear(self.config.hidden_size, self.size)
        require_fit(_used(bert, self.layers), self._bert, path, ENCODER)
        require_fit(projection, self._projection, path, PROJECTION)
        self._bert.load_state_dict(_used(bert, self.layers), assign=True)
        self._projection.load_state_dict(projection, assign=True)

    @torch.no_grad()
    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the unit features (N, P) of texts: `tokens` says how they are given."""
        return F.normalize(self._projection(self.tokens(ids, mask)[:, 0]), dim=-1)

    @torch.no_grad()
    def tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the tokens (N, L, C) after the last layer that is used.

        Args:
            ids: The numbers (N, L) of the texts' tokens, int64.
            mask: (N, L), 1 where there is a token, and 0 where there is padding.
        """
        places = torch.arange(ids.shape[1])[None]
        hidden: Tensor = self._bert(ids, mask, token_type_ids=torch.zeros_like(ids), position_ids=places)[0]
        return hidden


def _inside(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _used(bert: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return the tensors of the first layers, and of what lies before them."""
    numbers = {name: int(match[1]) for name in bert if (match := _LAYER.match(name))}
    return {
        name: value
        for name, value in bert.items()
        if numbers.get(name, 0) < layers and not name.startswith("pooler.")  # no text feature needs the pooler
    }


def _config(bert: Mapping[str, Tensor], path: Path, heads: int | None) -> BertConfig:
    """Return the sizes of a BERT, as far as its text features need them."""
    vocabulary, width = _shape(bert, "embeddings.word_embeddings.weight", path)
    longest, _ = _shape(bert, "embeddings.position_embeddings.weight", path)
    kinds, _ = _shape(bert, "embeddings.token_type_embeddings.weight", path)
    layers = _count_layers(bert, path)
    inner, _ = _shape(bert, "encoder.layer.0.intermediate.dense.weight", path)
    if heads is None and width % HEAD_WIDTH:
        raise UsageError(
            f"{path}: its text encoder has {width} channels, which {HEAD_WIDTH} does not divide: give the number of "
            "its attention heads with --text-heads"
        )
    if heads is not None and (heads < 1 or width % heads):
        raise UsageError(f"{heads} attention heads do not divide the {width} channels of {path}")
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads or width // HEAD_WIDTH,
        intermediate_size=inner,
        max_position_embeddings=longest,
        type_vocab_size=kinds,
    )


def _count_layers(bert: Mapping[str, Tensor], path: Path) -> int:
    """Return the number of layers before the first one that looks at the video."""
    numbers = {int(match[1]) for name in bert if (match := _LAYER.match(name))}
    fused = {int(match[1]) for name in bert if "crossattention" in name and (match := _LAYER.match(name))}
    count = min(fused) if fused else len(numbers)
    if not set(range(count)) <= numbers or not count:
        raise CheckpointError(f"{path}: layers of its text encoder are missing")
    return count


def _shape(tensors: Mapping[str, Tensor], name: str, path: Path, part: str = ENCODER) -> tuple[int, int]:
    """Return the shape of a matrix that tells sizes."""
    tensor = tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{path}: its {part} is not whole: it lacks {name}")
    if tensor.ndim != 2 or not tensor.numel():
        raise CheckpointError(f"{path}: {name} {tuple(tensor.shape)} of its {part} is no matrix")
    return tensor.shape[0], tensor.shape[1]
