"""Features of class names, from the text encoder of a video-text checkpoint, for the gallery of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..bundle.check import check_clip
from ..bundle.reading import Bundle
from ..errors import CheckpointError, GalleryError, MissingDependencyError, UsageError
from ..installation import install_command
from ..progress import note, part
from . import wordpiece
from .cleaning import PLAIN, filled_in
from .wordpiece import WordPiece

if TYPE_CHECKING:
    from torch import Tensor

    from .bert import TextEncoder

LENGTH = 32  # tokens of a text, as in the published pretraining
_ALIKE = 0.9  # least cosine between a bundle's feature and its checkpoint's, which int8 keeps well


@dataclass(frozen=True)
class TextModel:
    """What computes the features of texts.

    Attributes:
        encoder: The text encoder.
        tokenizer: Cuts texts into tokens.
        temperature: The temperature with which the model was trained.
    """

    encoder: TextEncoder
    tokenizer: WordPiece
    temperature: float

    @classmethod
    def load(cls, path: Path, tokenizer: str | Path | None = None, heads: int | None = None) -> TextModel:
        """Load the text encoder of a video-text checkpoint.

        Args:
            path: The checkpoint.
            tokenizer: The vocabulary, as for `WordPiece.load`; None takes that of bert-base-uncased from the hub.
            heads: The number of attention heads; None takes heads of 64 channels.

        Raises:
            CheckpointError: The file is no video-text checkpoint.
            UsageError: The vocabulary cannot be read, or is larger than the encoder's.
            HubError: The vocabulary cannot be fetched.
            MissingDependencyError: PyTorch is not installed.
        """
        tensors = _read(path)
        from .bert import TextEncoder

        encoder = TextEncoder(tensors, path, heads)
        pieces = WordPiece.load(tokenizer or wordpiece.DEFAULT)
        if len(pieces) > encoder.vocabulary:
            raise UsageError(
                f"the vocabulary has {len(pieces)} tokens, and the text encoder of {path} knows {encoder.vocabulary}: "
                "give its own with --tokenizer"
            )
        if len(pieces) < encoder.vocabulary:
            note(f"vmp-edge: the vocabulary has {len(pieces)} of the {encoder.vocabulary} tokens of {path}")
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
        length = min(LENGTH, self.encoder.longest)
        every = [filled_in(prompts, name) for name in names]
        rows = []
        with part("the texts", len(names), "texts") as step:
            for texts in every:
                found = self.encoder.features([self.tokenizer.ids(text, length) for text in texts]).numpy()
                mean = found.mean(0)
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

    model = load_checkpoint(path, "videomamba", manifest.frames, manifest.image_size, readout="pooled_frames")
    clip = check_clip(int(manifest.parity["check"]["seed"]), manifest.frames, manifest.image_size)
    with torch.no_grad():
        own = model(torch.from_numpy(manifest.preprocessing.clip(clip)))[0].numpy()
    theirs = np.asarray(recorded, np.float64)
    if theirs.shape != own.shape or not own @ theirs >= _ALIKE * np.linalg.norm(own) * np.linalg.norm(theirs):
        raise GalleryError(
            f"{bundle.path} gives other features than the model in {path}: give the checkpoint that it was built from"
        )


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a video-text model that are no part of its vision encoder, as float32."""
    try:
        from ..models import checkpoint_file, state_dict
    except ImportError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError(
            f"features of texts need PyTorch, which is not installed: {install_command('compile')}"
        ) from error
    return state_dict.beside_the_vision(checkpoint_file.read(path), path)
