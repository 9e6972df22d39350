"""The source model of VideoMamba and VideoMambaPro, its presets, and the loading of checkpoints.

Everything but the options and the presets needs PyTorch, which is imported at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError
from ..installation import install_command
from .options import FAMILIES, PRESETS, ModelOptions, preset

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint
    from .videomamba import VideoMamba, create, make_causal

__all__ = ["FAMILIES", "PRESETS", "ModelOptions", "VideoMamba", "create", "load_checkpoint", "make_causal", "preset"]

_MODULES = {
    "VideoMamba": "videomamba",
    "create": "videomamba",
    "load_checkpoint": "checkpoint",
    "make_causal": "videomamba",
}


if not TYPE_CHECKING:  # type checkers would take every unknown name for one of any type

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        except ImportError as error:
            if error.name != "torch":
                raise
            raise MissingDependencyError(
                f"{__name__}.{name} needs PyTorch, which is not installed: {install_command('compile')}"
            ) from error
        value = getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
