"""Features of class names, from the text encoder of a video-text checkpoint, for the gallery of a bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmp_edge.compile.needs import require_package

from ..bundle.check import check_clip
from ..bundle.reading import Bundle
from ..errors import CheckpointError, GalleryError, MissingDependencyError, UsageError
from ..installation import install_command
from ..progress import Step, note, without_notes
from .cleaning import PLAIN, filled_in

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BertTokenizerFast

    from .encoder import TextEncoder

OLDEST_TRANSFORMERS = 5  # its tokenizers take a vocabulary itself; before, a file
LENGTH = 32  # tokens of a text, as in the published pretraining
_ALIKE = 0.9  # least cosine between a bundle's feature and its checkpoint's, which int8 keeps well


@dataclass(frozen=True)
class TextModel:
    """What computes the features of texts.

    Attributes:
        encoder: The text encoder.
        tokenizer: Cuts texts into tokens, and gives their numbers.
        temperature: The temperature with which the model was trained.
    """

    encoder: TextEncoder
    tokenizer: BertTokenizerFast
    temperature: float

    @classmethod
    def load(cls, path: Path, tokenizer: str | Path | None = None, heads: int | None = None) -> TextModel:
        """Load the text encoder of a video-text checkpoint.

        Args:
            path: The checkpoint.
            tokenizer: Its place, as for `tokenizer.load`; None takes that of bert-base-uncased from the hub.
            heads: The number of attention heads; None takes heads of 64 channels.

        Raises:
            CheckpointError: The file is no video-text checkpoint.
            UsageError: The tokenizer cannot be read, or has more tokens than the encoder.
            HubError: The tokenizer cannot be fetched.
            MissingDependencyError: PyTorch or transformers is not installed.
        """
        require_libraries()
        tensors = _read(path)
        from . import tokenizer as tokenizers
        from .encoder import TextEncoder

        encoder = TextEncoder(tensors, path, heads)
        pieces = tokenizers.load(tokenizer or tokenizers.DEFAULT)
        size, known = tokenizers.size(pieces), encoder.config.vocab_size
        if size > known:
            raise UsageError(
                f"the vocabulary has {size} tokens, and the text encoder of {path} knows {known}: give its own with "
                "--tokenizer"
            )
        if size < known:
            note(f"vmp-edge: the vocabulary has {size} of the {known} tokens of {path}")
        temperature = tensors.get("temp")
        if temperature is None or temperature.numel() != 1:
            raise CheckpointError(f"{path}: has no temperature (temp), as video-text models do")
        return cls(encoder, pieces, float(temperature))

    def features(self, names: Sequence[str], prompts: Sequence[str] = PLAIN) -> npt.NDArray[np.float32]:
        """Return the unit features (K, P) of classes by their names.

        Args:
            names: The names.
            prompts: Texts with ``{}`` in the place of the name. The unit features of several are averaged, and the mean
                is scaled to unit length.

        Raises:
            UsageError: A prompt has no ``{}``, or nothing is left of a name.
        """
        length = min(LENGTH, self.encoder.config.max_position_embeddings)
        every = [filled_in(prompts, name) for name in names]
        rows = []
        with Step("computing features", len(names), "texts", quiet=True) as step:
            for texts in every:
                tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
                mean = self.encoder.features(tokens["input_ids"], tokens["attention_mask"]).numpy().mean(0)
                rows.append(mean / np.linalg.norm(mean))
                step.advance()
        return np.stack(rows).astype(np.float32)


def check_bundle(bundle: Bundle, path: Path, size: int) -> None:
    """Check that a bundle gives features that the texts of a checkpoint can be compared with.

    The checkpoint's own model computes the feature of the clip on which the build recorded the bundle's.

    Args:
        bundle: The bundle, which need not be for this machine.
        path: The checkpoint.
        size: The number of a text's features.

    Raises:
        GalleryError: The bundle was not built from this checkpoint with ``--features``.
    """
    manifest = bundle.manifest
    if manifest.model.get("readout") != "pooled_frames" or manifest.features != size:
        raise GalleryError(
            f"{bundle.path} gives no features that texts can be compared with: build it from the video-text checkpoint "
            f"with --checkpoint {path} --features"
        )
    recorded = (manifest.parity.get("check") or {}).get("features")
    if recorded is None:
        note(f"vmp-edge: {bundle.path} has no recorded feature, so that it could be of another checkpoint than {path}")
        return
    import torch

    from ..models import load_checkpoint

    with without_notes():  # the build has said them
        model = load_checkpoint(path, "videomamba", manifest.frames, manifest.image_size, readout="pooled_frames")
    clip = check_clip(int(manifest.parity["check"]["seed"]), manifest.frames, manifest.image_size)
    with torch.no_grad():
        own = model(torch.from_numpy(manifest.preprocessing.clip(clip)))[0].numpy()
    theirs = np.asarray(recorded, np.float64)
    if theirs.shape != own.shape or not own @ theirs >= _ALIKE * np.linalg.norm(own) * np.linalg.norm(theirs):
        raise GalleryError(
            f"{bundle.path} gives other features than the model in {path}: give the checkpoint that it was built from"
        )


def require_libraries() -> None:
    """Check that what computes texts' features is installed, and quieten it.

    Raises:
        MissingDependencyError: PyTorch or transformers is not installed, or transformers is too old.
    """
    for name in ("torch", "transformers"):
        require_package(name, "computing features of texts", "text")
    version = metadata.version("transformers")
    if int(version.partition(".")[0]) < OLDEST_TRANSFORMERS:
        raise MissingDependencyError(
            f"computing features of texts needs transformers {OLDEST_TRANSFORMERS}, and {version} is installed; run: "
            f"{install_command('text')}"
        )
    import torch  # before the levels are set, as it sets its own  # noqa: F401

    for name in ("torch", "torchao", "transformers"):  # importing transformers imports all of them
        logging.getLogger(name).setLevel(logging.ERROR)


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a video-text model that are no part of its vision encoder, as float32."""
    from ..models import checkpoint_file, state_dict

    return state_dict.beside_the_vision(checkpoint_file.read(path), path)
