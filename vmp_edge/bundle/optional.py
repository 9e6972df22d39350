"""Entries of a manifest that not all bundles have: the model's family, and what is needed of a GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BundleError
from ..names import shown
from .entry import Entry

# The model's option that differs between the families. A family that is not here is none that this version knows.
_INITIAL_STATES = {"videomamba": "zero", "videomambapro": "first_input"}


@dataclass(frozen=True)
class FamilyEntry:
    """Which family a checkpoint was taken for, `videomamba` or `videomambapro`, and the reason, which begins "because".

    The weights do not tell it for sure, and a model of the wrong family gives wrong results without an error.
    """

    name: str
    reason: str

    @classmethod
    def read(cls, entry: Entry, model: Mapping[str, Any]) -> FamilyEntry:
        """Read the entry beside the model's options.

        Raises:
            BundleError: It is not valid, or the options are of the other family.
        """
        family = cls(entry.text("name"), entry.text("reason"))
        state = model.get("initial_state")
        if family.name in _INITIAL_STATES and state in [
            other for name, other in _INITIAL_STATES.items() if name != family.name
        ]:
            raise BundleError(f"contradicts itself: the family is {family.name}, but the model's options are another's")
        return family


def read_gpu(entry: Entry) -> dict[str, Any]:
    """Read what the program needs of a GPU.

    Raises:
        BundleError: The entry is not valid.
    """
    architectures = entry.values.get("architectures")
    if not isinstance(architectures, list) or not architectures or not all(type(sm) is int for sm in architectures):
        raise BundleError("needs a list of whole numbers for 'gpu.architectures'")
    cuda = entry.text("cuda")
    if re.fullmatch(r"[0-9][0-9.]{0,14}", cuda) is None:
        raise BundleError(f"needs a version such as 12.6 for 'gpu.cuda', found {shown(cuda)}")
    return {"architectures": architectures, "cuda": cuda, "device": entry.text("device")}
