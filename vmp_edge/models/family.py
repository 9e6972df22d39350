"""Find out the family of a checkpoint, which decides how its tensors are used. The tensors do not tell it for sure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UsageError
from .options import FAMILIES

_MIXER = "layers.0.mixer"
# A family in a name, however it is divided. "Pro" is a word of its own, and not the beginning of "pronation".
_NAMED = re.compile(
    r"(?i:video[\W_]*mamba)(?P<pro>[\W_]*(?i:pro)(?![a-z])|(?i:pro)(?=tiny|small|middle|base|finetun|pretrain|k\d|in\d))?"
)


@dataclass(frozen=True)
class Decision:
    """The family of a checkpoint, and why it was chosen.

    Attributes:
        family: A key of `FAMILIES`.
        reason: Why, as a part of a sentence.
        is_sure: False if the other family may have such a checkpoint, too, so that the user should know how to say it.
    """

    family: str
    reason: str
    is_sure: bool = True

    def sentence(self, path: Path) -> str:
        """Return what the user should know about the family of the file."""
        other = next(family for family in FAMILIES if family != self.family)
        hint = "" if self.is_sure else f" (if it is a {other}, give --family {other})"
        return f"{path} is taken for a {self.family}, {self.reason}{hint}"


def directions(tensors: Mapping[str, Any]) -> str:
    """Return which directions the mixers have, as `ModelOptions.directions` calls them.

    The published mixers have ``x_proj_b`` if the backward direction has its own projections, and only ``A_b_log`` if it
    shares them.
    """
    if f"{_MIXER}.x_proj_b.weight" in tensors:
        return "separate"
    return "shared" if f"{_MIXER}.A_b_log" in tensors else "forward"


def decide(tensors: Mapping[str, Any], path: Path, architecture: str | None, family: str | None) -> Decision:
    """Decide which family a checkpoint is of.

    The user's word counts most, then the model's name in the training's arguments, then the file's name. Without them
    the directions decide: VideoMambaPro's share their weights or there is one only, VideoMamba's are separate.

    Args:
        tensors: The tensors under their published names.
        path: The file, whose name may tell the family.
        architecture: The model's name in the training's arguments, or None.
        family: What the user says, or None.

    Raises:
        UsageError: The user names a family that there is not.
        CheckpointError: Two of these contradict each other.
    """
    if family is not None and family not in FAMILIES:
        raise UsageError(f"unknown family {family!r}; known are {', '.join(FAMILIES)}")
    found = directions(tensors)
    by_arguments, by_name = family_in(architecture), family_in(path.name)
    if family is not None:
        decision = Decision(family, _user_says(family, by_arguments, by_name, architecture))
    elif by_arguments is not None and by_name is not None and by_arguments != by_name:
        raise CheckpointError(
            f"{path}: its name says {by_name}, but its training calls the model {architecture!r}; say which it is with "
            "--family"
        )
    elif by_arguments is not None:
        decision = Decision(by_arguments, f"because its training calls the model {architecture!r}")
    elif by_name is not None:
        decision = Decision(by_name, "because its name says so")
    else:
        decision = _by_directions(found)
    if decision.family == "videomamba" and found == "shared":
        raise CheckpointError(
            f"{path}: is a videomamba, {decision.reason}, but its directions share their weights, as only a "
            "videomambapro's do: give --family videomambapro"
        )
    return decision


def _by_directions(found: str) -> Decision:
    if found == "separate":
        return Decision("videomamba", "because its directions have separate weights", is_sure=False)
    if found == "shared":
        return Decision("videomambapro", "because its directions share their weights")
    reason = "because it has one direction, as the released code of videomambapro by default"
    return Decision("videomambapro", reason, is_sure=False)


def _user_says(family: str, by_arguments: str | None, by_name: str | None, architecture: str | None) -> str:
    """Return the reason for a family that the user names, and what else the file says, which the user overrules."""
    if by_arguments not in (None, family):
        return f"because --family says so, though its training calls the model {architecture!r}"
    if by_name not in (None, family):
        return "because --family says so, though its name says another"
    return "because --family says so"


def family_in(name: str | None) -> str | None:
    """Return the family that a name mentions, or None."""
    match = _NAMED.search(name or "")
    return None if match is None else "videomambapro" if match["pro"] else "videomamba"
