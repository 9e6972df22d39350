"""What a lowering is, and which module has the one for an engine."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from vmp_edge.errors import UsageError

if TYPE_CHECKING:
    from vmp_edge.bundle import Staging
    from vmp_edge.compile.target import Target
    from vmp_edge.models import VideoMamba

MODULES = {
    "executorch": "vmp_edge.compile.executorch",
    "torch": "vmp_edge.compile.torch",
    "tvm": "vmp_edge.compile.tvm",
}


@dataclass(frozen=True)
class Lowered:
    """What a lowering made.

    Attributes:
        program: the file in the bundle that the engine executes.
        tools: name and version of what made it.
        cpu_features: what it needs of a CPU beyond the architecture, as the manifest has it.
    """

    program: str
    tools: dict[str, str]
    cpu_features: tuple[str, ...] = ()


class Lower(Protocol):
    """A lowering: adds the program, and all that it needs on the device, to a bundle."""

    def __call__(self, model: VideoMamba, staging: Staging, kind: Target) -> Lowered:
        """Lower `model` for the target `kind` into `staging`."""
        ...


def find(engine: str) -> Lower:
    """The lowering for an engine.

    Raises:
        UsageError: there is none.
        MissingDependencyError: what it imports is not installed.
    """
    if engine not in MODULES:
        raise UsageError(f"nothing lowers to the engine {engine!r}; known are {', '.join(MODULES)}")
    return cast(Lower, importlib.import_module(MODULES[engine]).lower)
