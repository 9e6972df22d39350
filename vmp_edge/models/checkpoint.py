"""Read published checkpoints, and our own, into the source model."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, UsageError
from ..progress import note
from . import checkpoint_file, state_dict
from . import family as families
from .options import FAMILIES, ModelOptions
from .state_dict import LANDMARK
from .videomamba import VideoMamba

DEFAULT_FRAMES = 8  # for an image checkpoint, which has no frame count; the published code's default
PUBLISHED = "published"  # the readout whose features the published code uses
MAX_KEYS_IN_ERROR = 6  # an error names so many keys before it says "and N more"
# The dimensions of the tensors that sizes are inferred from.
DIMENSIONS = {
    LANDMARK: (4, 5),
    "pos_embed": (3,),
    "temporal_pos_embedding": (3,),
    "head.weight": (2,),
    "layers.0.mixer.A_log": (2,),
    "layers.0.mixer.conv1d.weight": (3,),
}
OPTIONAL = ("temporal_pos_embedding", "head.weight")


def load_checkpoint(
    path: str | Path,
    family: str | None = None,
    num_frames: int | None = None,
    image_size: int | None = None,
    tubelet_size: int | None = None,
    key: str | None = None,
    readout: str | None = None,
    classes: int | None = None,
) -> VideoMamba:
    """Load a published checkpoint, one of our own, or one as a training program saves it.

    Nothing in the file is run: what lies beside the weights (optimiser, arguments, numbers of NumPy) is plain data, and
    a file that would have to run something is refused. A message on standard error says what was chosen among several
    models, and what was left out.

    Every size is inferred from the tensors. Position embeddings are interpolated as the published code does
    (VideoMamba, video_sm/run_class_finetuning.py: bicubic in space, linear in time). The 2-D patch embedding of an
    image checkpoint becomes the middle frame of the tubelet (video_sm/models/videomamba.py, "center"). Weights of any
    floating dtype become float32. If the file has ``options``, as files of our own do, they overrule ``family``.

    Args:
        path: The file, of PyTorch or safetensors, the folder of a checkpoint that DeepSpeed wrote, or the folder or
            the index (``*.index.json``) of a model in several parts. A state dict may be bare or under a key such as
            ``model``, ``module`` or ``model_ema``, and its names may have prefixes of wrappers such as ``module.``,
            ``_orig_mod.``, ``model.`` and ``backbone.``.
        family: ``videomamba`` or ``videomambapro``. None finds it out (`family.decide`), and a message says it.
        num_frames: Frames of a clip. None keeps the checkpoint's number, and means 8 for an image checkpoint.
        image_size: Pixels of a frame's side. None keeps the checkpoint's number.
        tubelet_size: Frames in a patch. None keeps the checkpoint's number, and means 1 for an image checkpoint.
        key: Which model to take from a file with several, by its key or its prefix. None takes the trained weights
            before averaged ones (``model`` before ``model_ema``).
        readout: What the head reads, as in `ModelOptions`. None keeps the checkpoint's, which is the class token in
            published files. ``published`` means ``pooled_frames`` for a video-text model, and else the same as None.
        classes: The number of classes to keep, the first ones. None keeps all, 0 leaves the head out. In this way the
            published code uses heads of the 710 classes of Kinetics-710 for Kinetics-400, whose classes come first.

    Returns:
        The model in evaluation mode. Without a classifier in the file, as after pretraining, ``options.num_classes`` is
        0, and the model gives features alone. Its ``family`` says which family was decided on, and why.

    Raises:
        CheckpointError: The file is not a checkpoint of the family, or has values that are not finite; the text names
            keys and shapes.
        UsageError: The family or the key is unknown, or the model cannot have one of the sizes.
    """
    path = Path(path)
    found = state_dict.find(checkpoint_file.read(path), path, key)
    state, notes = found.tensors, list(found.notes)
    if readout == PUBLISHED:
        readout = "pooled_frames" if found.pooling else None
    decision = None if found.options else families.decide(state, path, found.architecture, family)
    try:
        if decision is not None:
            source = infer_options(state, decision.family, tubelet_size)
            notes.append(decision.sentence(path))
        else:
            source = ModelOptions.from_dict(found.options or {})
        _require_layers(state, source)
    except (UsageError, KeyError, ValueError, IndexError, ZeroDivisionError, TypeError) as error:
        raise CheckpointError(f"{path}: its tensors do not make a model of the family: {error}") from error
    source, state = _with_readout(source, found, readout, path)
    if classes is not None:
        source, state = _with_fewer_classes(source, state, classes, path)
    if text := found.note(path, source.projection > 0):
        notes.append(text)
    options = dataclasses.replace(
        source,
        num_frames=source.num_frames if num_frames is None else num_frames,
        image_size=source.image_size if image_size is None else image_size,
    )
    state = fit_patch_embedding(state, source)
    with torch.device("meta"):  # shapes are enough
        require_fit(state, VideoMamba(source), path)
    model = VideoMamba(options)
    model.family = decision
    model.load_state_dict(interpolate_positions(state, options))
    if options.directions == "forward" and options.readout == "class_token" and not options.causal:
        notes.append(
            f"{path} scans in one direction, and its head reads the first token, which sees no other one: its logits "
            "do not depend on the clip"
        )
    for text in notes:
        note(f"vmp-edge: {text}")
    return model.eval()


def _with_readout(
    source: ModelOptions, found: state_dict.StateDict, readout: str | None, path: Path
) -> tuple[ModelOptions, dict[str, Tensor]]:
    """Return options with a readout, and the tensors that it needs; None keeps the options' own readout."""
    readout = source.readout if readout is None else readout
    if readout != "pooled_frames":
        return dataclasses.replace(source, readout=readout, projection=0), found.tensors
    if not found.pooling:
        raise CheckpointError(
            f"{path}: has no pool_norm and vision_proj, which the readout pooled_frames of video-text models needs"
        )
    if source.num_classes:
        raise CheckpointError(f"{path}: has a head, which the readout pooled_frames of video-text models does not use")
    projection = found.pooling["vision_proj.weight"].shape[0]
    return dataclasses.replace(source, readout=readout, projection=projection), {**found.tensors, **found.pooling}


def _with_fewer_classes(
    source: ModelOptions, state: dict[str, Tensor], classes: int, path: Path
) -> tuple[ModelOptions, dict[str, Tensor]]:
    """Return options and tensors of the first classes alone."""
    if not 0 <= classes <= source.num_classes:
        has = f"has {source.num_classes} classes" if source.num_classes else "has no classifier"
        raise UsageError(f"{path}: {has}, of which the first {classes} cannot be kept")
    head = ("head.weight", "head.bias")
    kept = {name: value[:classes] if name in head else value for name, value in state.items()}
    if not classes:
        kept = {name: value for name, value in kept.items() if name not in head}
    return dataclasses.replace(source, num_classes=classes), kept


def infer_options(state: dict[str, Tensor], family: str, tubelet_size: int | None) -> ModelOptions:
    """Infer a model's options from the shapes in a published state dict.

    Args:
        state: The tensors under their published names.
        family: The family, a key of `FAMILIES`.
        tubelet_size: Frames in a patch of an image checkpoint; None means 1 for an image checkpoint.

    Raises:
        ValueError: A tensor that tells a size is missing, the positions are not a square grid, or `tubelet_size` is not
            the checkpoint's.
    """
    if missing := [key for key in DIMENSIONS if key not in state and key not in OPTIONAL]:
        begin = f"; its tensors are {', '.join(list(state)[:3])}, ..." if len(missing) == len(DIMENSIONS) - 2 else ""
        raise ValueError(f"it lacks {', '.join(missing)}{begin}")
    for key, numbers in DIMENSIONS.items():
        if key in state and state[key].ndim not in numbers:
            raise ValueError(f"{key} {tuple(state[key].shape)} does not have {numbers[-1]} dimensions")
    patch = state["patch_embed.proj.weight"]
    width, patch_size = patch.shape[0], patch.shape[-1]
    tubelet = patch.shape[2] if patch.ndim == 5 else tubelet_size or 1
    if tubelet_size is not None and tubelet_size != tubelet:
        raise ValueError(f"its patches span {tubelet} frames, not {tubelet_size} as requested")
    side = math.isqrt(state["pos_embed"].shape[1] - 1)
    if side * side != state["pos_embed"].shape[1] - 1:
        raise ValueError(f"pos_embed {tuple(state['pos_embed'].shape)} is not a class token and a square grid")
    time = state.get("temporal_pos_embedding")
    inner, states = state["layers.0.mixer.A_log"].shape
    traits = dict(FAMILIES[family])
    traits["directions"] = families.directions(state)
    if traits["directions"] != "shared":
        traits["mask_backward"] = False  # the released code masks only where the directions share their weights
    if traits["directions"] == "forward":
        traits["scan_input"] = "conv"  # so does the released code of both families in one direction
    return ModelOptions(
        **traits,
        patch_size=patch_size,
        tubelet_size=tubelet,
        embed_dim=width,
        depth=1 + max(int(match[1]) for key in state if (match := re.match(r"layers\.(\d+)\.", key))),
        d_state=states,
        expand=inner // width,
        d_conv=state["layers.0.mixer.conv1d.weight"].shape[-1],
        num_frames=DEFAULT_FRAMES if time is None else time.shape[1] * tubelet,
        image_size=side * patch_size,
        num_classes=state["head.weight"].shape[0] if "head.weight" in state else 0,
    )


def _require_layers(state: dict[str, Tensor], options: ModelOptions) -> None:
    """Check that the tensors are of as many layers as the options say, so that no model is made of a wrong number."""
    inside = {int(match[1]) for key in state if (match := re.match(r"layers\.(\d{1,6})\.", key))}
    if options.depth > len(inside):
        missing = next(layer for layer in range(options.depth) if layer not in inside)
        raise ValueError(f"it has {len(inside)} layers, and layers.{missing} is not among them")


def fit_patch_embedding(state: dict[str, Tensor], options: ModelOptions) -> dict[str, Tensor]:
    """Turn an image checkpoint's tensors into those of a video model; leave those of a video model as they are."""
    state = dict(state)
    patch = state.get("patch_embed.proj.weight")
    if patch is not None and patch.ndim == 4:
        inflated = patch.new_zeros(*patch.shape[:2], options.tubelet_size, *patch.shape[2:])
        inflated[:, :, options.tubelet_size // 2] = patch
        state["patch_embed.proj.weight"] = inflated
        # the published model starts from zeros, too
        state.setdefault("temporal_pos_embedding", patch.new_zeros(1, options.grid[0], options.embed_dim))
    return state


def interpolate_positions(state: dict[str, Tensor], options: ModelOptions) -> dict[str, Tensor]:
    """Interpolate the position embeddings to the frame count and the image size of the options."""
    state = dict(state)
    steps, side = options.grid
    first, grid = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    old = math.isqrt(grid.shape[1])
    if old != side:
        picture = grid.transpose(1, 2).reshape(1, -1, old, old)
        picture = F.interpolate(picture, size=(side, side), mode="bicubic", align_corners=False)
        state["pos_embed"] = torch.cat([first, picture.flatten(2).transpose(1, 2)], dim=1)
    time = state.get("temporal_pos_embedding")  # which causal models do not have
    if time is not None and time.shape[1] != steps:
        line = F.interpolate(time.transpose(1, 2), size=steps, mode="linear", align_corners=False)
        state["temporal_pos_embedding"] = line.transpose(1, 2)
    return state


def require_fit(state: Mapping[str, Tensor], model: nn.Module, path: str | Path, part: str = "model") -> None:
    """Compare keys and shapes before anything is loaded, so that no model is ever half loaded.

    Args:
        state: The tensors that are to be loaded.
        model: What they are for; it may be without memory (``meta``).
        path: Their file, for messages.
        part: What `model` is called in messages.

    Raises:
        CheckpointError: A tensor is missing, unknown, or has another shape; the text names keys and shapes.
    """
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    missing = [f"{key} {expected[key]}" for key in expected if key not in state]
    unknown = [f"{key} {tuple(state[key].shape)}" for key in state if key not in expected]
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    faults = [
        f"{fault} {', '.join(keys[:MAX_KEYS_IN_ERROR])}"
        + (f" and {len(keys) - MAX_KEYS_IN_ERROR} more" if len(keys) > MAX_KEYS_IN_ERROR else "")
        for fault, keys in (("lacks", missing), ("has unknown", unknown), ("has wrong shapes:", wrong))
        if keys
    ]
    if faults:
        raise CheckpointError(f"{path}: does not fit the {part}: it {'; it '.join(faults)}")
