"""Find the state dict of a VideoMamba in what a checkpoint file holds, whichever program wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, UsageError
from ..text import printable
from .plain_pickle import Foreign

LANDMARK = "patch_embed.proj.weight"  # every model of the family has it, at the head of its names
# The keys under which training programs keep a model, the likeliest first; then those of averaged weights.
MODELS = (
    "model", "module", "state_dict", "model_state_dict", "model_state", "net", "network", "student", "params",
    "weights",
)  # fmt: skip
AVERAGES = (
    "model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema", "averaged_model",
    "params_ema", "shadow", "teacher",
)  # fmt: skip
# A word in a key that says that its weights are averages, in whatever other words.
AVERAGED = re.compile(
    r"(^|[^a-z])(ema|swa|avg|average|averaged|polyak|shadow|teacher|momentum|target)([^a-z]|$)", re.IGNORECASE
)
# Parts of names that wrappers put before a model's own.
WRAPPERS = ("module", "model", "net", "network", "backbone", "encoder", "_orig_mod", "vision_encoder", "student")
# Where the classifier lies in files that keep it apart from the backbone.
HEADS = ("cls_head.fc_cls", "cls_head.fc", "head.fc_cls", "head.fc", "head", "fc_cls", "classifier", "fc")
# Of pretraining and distillation; the last two are of video-text models, see `StateDict.pooling`.
DROPPED = ("distill_head.", "clip_decoder.", "decoder.", "mask_token", "pool_norm.", "vision_proj.")
OWN = re.compile(r"(cls_token|pos_embed|temporal_pos_embedding|patch_embed\.|layers\.\d|norm_f\.|head\.(weight|bias)$)")
OPTIMISERS = ("optimizer", "optimizer_state_dict", "optimizer_states", "param_groups", "optim")  # keys of their states
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
DEPTH = 3  # dicts inside dicts that are searched
NAMES_IN_MESSAGE = 3
MOST_LETTERS = 200  # of a name in a message


@dataclass(frozen=True)
class StateDict:
    """The tensors of a model, as a file has them.

    Attributes:
        tensors: The tensors as float32 under their published names.
        options: The model's options, if the file has any, as files of our own do.
        notes: What the user should know: what was chosen among several, and what was left out.
        architecture: What the file calls its model, as in the training's arguments; None if nothing does.
        pooling: The tensors with which a video-text model makes the feature of a video from its tokens, as
            `VideoMamba` has them; empty for other models.
        left_out: What else lies in the model's dict, by the beginning of its names.
    """

    tensors: dict[str, Tensor]
    options: dict[str, Any] | None
    notes: tuple[str, ...]
    architecture: str | None = None
    pooling: dict[str, Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def note(self, path: Path, pooled: bool) -> str | None:
        """Return a sentence about what is left out, if anything is.

        Args:
            path: The file.
            pooled: Whether the pooling is used.
        """
        names = [name for name in self.left_out if not (pooled and name.endswith(("pool_norm", "vision_proj")))]
        return f"{path}: left out {_list_briefly(names)}, which a VideoMamba does not have" if names else None


@dataclass(frozen=True)
class _Candidate:
    """A model inside a file: the keys that lead to its dict, and the parts of names before its own."""

    keys: tuple[str, ...]
    prefix: str
    entries: Mapping[Any, Any]

    @property
    def words(self) -> tuple[str, ...]:
        """The keys, and the parts of the prefix."""
        return (*self.keys, *self.prefix.rstrip(".").split(".")) if self.prefix else self.keys

    @property
    def name(self) -> str:
        """What the user calls it with `key`."""
        average = next(filter(AVERAGED.search, self.words), None)
        return brief(average if average is not None else self.words[0] if self.words else "")

    @property
    def averaged(self) -> bool:
        """Whether its weights are averages over the training (EMA)."""
        return any(map(AVERAGED.search, self.words))

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The likeliest candidate has the least rank."""
        known = (*MODELS, *AVERAGES)
        places = [known.index(key) if key in known else len(known) for key in self.keys[:1]]
        strange = sum(word not in (*WRAPPERS, *known) for word in self.words)
        return self.averaged, strange, sum(places)


def find(content: Any, path: Path, key: str | None = None) -> StateDict:
    """Find the state dict of a model.

    Args:
        content: The file's content.
        path: The file, for messages.
        key: Which of several models to take, by the key or the prefix under which the file has it; None takes the
            trained weights before averaged ones (EMA).

    Raises:
        CheckpointError: There is none, a value of it is no floating-point tensor, or it is not finite.
        UsageError: There is none under `key`; the text names those that there are.
    """
    candidates = sorted(_candidates(content), key=lambda candidate: candidate.rank)
    chosen = _choose(candidates, path, key)
    if chosen is None:
        chosen = _Candidate((), "", _any_state_dict(content, path))
    notes = [] if key is not None else _notes(candidates, chosen, path)
    others = [c.prefix for c in candidates if c.entries is chosen.entries and not chosen.prefix.startswith(c.prefix)]
    entries, left_out = _own_entries(chosen, tuple(others))
    options = content.get("options") if isinstance(content, dict) else None
    name = _architecture(content)
    tensors = {name: as_float32(name, value, path) for name, value in entries.items()}
    pooling = {name: as_float32(name, value, path) for name, value in _pooling(chosen).items()}
    return StateDict(
        tensors, options if isinstance(options, dict) else None, tuple(notes), name, pooling, tuple(left_out)
    )


def beside_the_vision(content: Any, path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Return what a video-text model has beside its vision encoder: the text encoder, projections, the temperature.

    Args:
        content: The file's content.
        path: The file, for messages.
        key: See `find`.

    Returns:
        Tensors as float32 under their published names, without whole numbers, such as those of positions.

    Raises:
        CheckpointError: There is no video-text model, or a value is not finite.
    """
    candidates = sorted(_candidates(content), key=lambda candidate: candidate.rank)
    both = [candidate for candidate in candidates if candidate.prefix.endswith("vision_encoder.")]
    chosen = _choose(both, path, key)
    if chosen is None:
        raise CheckpointError(
            f"{path}: is no video-text checkpoint: it has no vision_encoder, as those of VideoMamba's video_mm have"
        )
    prefix = chosen.prefix.removesuffix("vision_encoder.")
    wanted = ("text_encoder.", "text_proj.", "vision_proj.", "temp")
    names = {str(name).removeprefix(prefix): value for name, value in chosen.entries.items()}
    return {
        name: as_float32(name, value, path)
        for name, value in names.items()
        if name.startswith(wanted)
        and not name.startswith("text_encoder.cls.")
        and isinstance(value, Tensor)
        and value.is_floating_point()
    }


def _pooling(chosen: _Candidate) -> dict[str, Any]:
    """Return the tensors of a video-text model's pooling, if all are there: the norm's are the vision encoder's."""
    outside = chosen.prefix.removesuffix("vision_encoder.")
    names = {f"pool_norm.{part}": f"{chosen.prefix}pool_norm.{part}" for part in ("weight", "bias")}
    names |= {f"vision_proj.{part}": f"{outside}vision_proj.{part}" for part in ("weight", "bias")}
    found = {name: chosen.entries[key] for name, key in names.items() if key in chosen.entries}
    return found if len(found) == len(names) else {}


def _architecture(content: Any) -> str | None:
    """Return the name of the model in the training's arguments, or under the key that timm has for it."""
    if not isinstance(content, dict):
        return None
    arguments = content.get("args")
    state = arguments.state if isinstance(arguments, Foreign) else arguments
    names = [state.get("model") if isinstance(state, dict) else None, content.get("arch")]
    return next((brief(name) for name in names if isinstance(name, str)), None)


def _choose(candidates: list[_Candidate], path: Path, key: str | None) -> _Candidate | None:
    if key is None:
        return candidates[0] if candidates else None
    fitting = [candidate for candidate in candidates if key in (candidate.name, *candidate.words)]
    if not fitting:
        known = ", ".join(dict.fromkeys(candidate.name for candidate in candidates if candidate.name)) or "none by name"
        raise UsageError(f"{path}: holds no model under {key!r}; the keys of its models are: {known}")
    return fitting[0]


def _notes(candidates: list[_Candidate], chosen: _Candidate, path: Path) -> list[str]:
    """Say which model was taken if there are several, or if it is one of averaged weights."""
    names = list(dict.fromkeys(candidate.name for candidate in candidates))
    others = [name or "the bare one" for name in names if name != chosen.name]
    if others:
        taken = repr(chosen.name) if chosen.name else "the bare one"
        return [
            f"{path}: holds several models; took {taken} and not {' and '.join(others)} "
            "(choose with --checkpoint-key, in Python with key=)"
        ]
    return [f"{path}: took {chosen.name!r}, averaged weights (EMA), as it holds no others"] if chosen.averaged else []


def _candidates(content: Any, keys: tuple[str, ...] = ()) -> Iterator[_Candidate]:
    """Yield every model in a file: every dict in it, and every prefix, with the name that all models have."""
    if not isinstance(content, dict):
        return
    for name in content:
        if isinstance(name, str) and (name == LANDMARK or name.endswith(f".{LANDMARK}")):
            yield _Candidate(keys, name.removesuffix(LANDMARK), content)
    if len(keys) < DEPTH:
        for name, value in content.items():
            if isinstance(name, str):
                yield from _candidates(value, (*keys, name))


def _any_state_dict(content: Any, path: Path) -> Mapping[Any, Any]:
    """Return a dict of tensors that is no model of the family, so that what it lacks can be said."""
    known = [content.get(name) for name in (*MODELS, *AVERAGES)] if isinstance(content, dict) else []
    for entries in (*known, content):
        if isinstance(entries, dict) and any(isinstance(value, Tensor) for value in entries.values()):
            return entries
    wholes = [entries for entries in (*known, content) if isinstance(entries, Foreign)]
    if wholes:
        raise CheckpointError(
            f"{path}: holds a whole object of the class {brief(wholes[0].kind)}, which needs pickled code to load; "
            "save its state dict: torch.save({'model': model.state_dict()}, ...)"
        )
    keys = [str(key) for key in content] if isinstance(content, dict) else []
    if set(keys) & set(OPTIMISERS):
        raise CheckpointError(
            f"{path}: holds the state of an optimiser and no model; give the file with the weights, which training "
            "programs save beside it"
        )
    inside = f"; its keys are {_list_briefly(keys)}" if keys else ""
    raise CheckpointError(
        f"{path}: holds no state dict (a dict of tensors, bare or under 'model', 'module', 'state_dict', ...){inside}"
    )


def _own_entries(chosen: _Candidate, prefixes: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """Return a model's entries under their published names, and the names of what was left out.

    Args:
        chosen: The model.
        prefixes: The prefixes of the other models in the same dict.
    """
    entries: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key, value in chosen.entries.items():
        name = brief(strip_prefixes(str(key).removeprefix(chosen.prefix)))
        inside = str(key).startswith(chosen.prefix) and name not in entries and not str(key).startswith(prefixes)
        if inside and (OWN.match(name) or not (name.startswith(DROPPED) or _is_counter(value))):
            entries[name] = value
        else:
            others[str(key)] = value
    if "norm_f.weight" not in entries and "norm.weight" in entries:  # models for pretraining call it so
        entries["norm_f.weight"] = entries.pop("norm.weight")
    if "head.weight" not in entries and (head := _head(entries, others)):
        for part in ("weight", "bias"):
            entries[f"head.{part}"] = others.pop(f"{head}.{part}")
    starts = [len(chosen.prefix) if key.startswith(chosen.prefix) else 0 for key in others]
    return entries, [key[:start] + key[start:].split(".")[0] for key, start in zip(others, starts, strict=True)]


def _is_counter(value: Any) -> bool:
    """Return whether a value is no weight: something else than a tensor, or a whole number that counts steps."""
    return not isinstance(value, Tensor) or (value.ndim == 0 and not value.is_floating_point())


def _head(entries: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    """Return the name of a classifier outside the backbone for the backbone's features; None if there is none."""
    landmark = entries.get(LANDMARK)
    width = landmark.shape[0] if isinstance(landmark, Tensor) and landmark.ndim else None
    for key, weight in others.items():
        name, _, part = key.rpartition(".")
        bias = others.get(f"{name}.bias")
        if part != "weight" or strip_prefixes(name) not in HEADS:
            continue
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor) or weight.ndim != 2:
            continue
        if weight.shape[1] == width and bias.shape == weight.shape[:1]:
            return name
    return None


def brief(name: str) -> str:
    """Return a name from a file as it may stand in a message: in one line, and not too long."""
    return printable(name[:MOST_LETTERS])


def strip_prefixes(key: str) -> str:
    """Remove the names that wrappers put before a tensor's own, in any order and number."""
    while "." in key and key.split(".", 1)[0] in WRAPPERS:
        key = key.split(".", 1)[1]
    return key


def as_float32(name: str, value: Any, path: Path) -> Tensor:
    """Return a weight as float32.

    Raises:
        CheckpointError: It is no tensor, not in floating point, or not finite as float32.
    """
    if not isinstance(value, Tensor):
        kind = brief(value.kind) if isinstance(value, Foreign) else type(value).__name__
        kind = "an array of NumPy" if kind in _ARRAYS else kind
        raise CheckpointError(f"{path}: {name} is {kind}, not a tensor")
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{path}: {name} holds {kind} numbers and not weights in floating point; give the checkpoint before it was "
            "quantised"
        )
    if not value.numel():
        raise CheckpointError(
            f"{path}: {name} {tuple(value.shape)} has no values, as DeepSpeed's ZeRO leaves weights that it divides; "
            "put them together with its zero_to_fp32.py"
        )
    if value.layout != torch.strided or value.is_meta:
        raise CheckpointError(f"{path}: {name} is a sparse or empty tensor; save it as an ordinary one")
    tensor = value.detach().float()
    if not bool(torch.isfinite(tensor).all()):
        count = int((~torch.isfinite(tensor)).sum())
        overflow = " as float32" if value.dtype == torch.float64 and bool(torch.isfinite(value).all()) else ""
        raise CheckpointError(
            f"{path}: {name} holds values that are not finite{overflow} ({count} of {tensor.numel()}): the training "
            "has diverged, or the file is damaged; take an earlier checkpoint"
        )
    return tensor


def _list_briefly(names: list[str]) -> str:
    """List names, each once, and of many the first few."""
    different = list(dict.fromkeys(map(brief, names)))
    listed = ", ".join(different[:NAMES_IN_MESSAGE])
    return listed if len(different) <= NAMES_IN_MESSAGE else f"{listed} and {len(different) - NAMES_IN_MESSAGE} more"
