"""VideoMamba and VideoMambaPro on devices.

Importing this package needs numpy, OpenCV and PyYAML only; engines and `vmp_edge.models` are imported when asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _checkout, _moved
from .errors import (
    BuildError,
    BundleError,
    CheckpointError,
    GalleryError,
    MissingDependencyError,
    SourceError,
    UsageError,
    VmpError,
)

if TYPE_CHECKING:
    from . import models as models
    from . import ops as ops
    from .bundle.reading import Bundle
    from .events.detector import Event, EventDetector, EventRule
    from .gallery import Gallery
    from .loading import load
    from .prediction import Prediction
    from .preprocessing import Preprocessing
    from .recognizer import Recognizer
    from .results import Results
    from .sources import open_source
    from .stream.cameras import Camera, Cameras
    from .stream.options import StreamOptions
    from .stream.smoothing import Smoothing
    from .stream.statistics import Statistics
    from .stream.stream import Stream

_checkout.install()
_moved.install()

__version__ = "0.1.0"
__all__ = [
    "BuildError",
    "Bundle",
    "BundleError",
    "Camera",
    "Cameras",
    "CheckpointError",
    "Event",
    "EventDetector",
    "EventRule",
    "Gallery",
    "GalleryError",
    "MissingDependencyError",
    "Prediction",
    "Preprocessing",
    "Recognizer",
    "Results",
    "Smoothing",
    "SourceError",
    "Statistics",
    "Stream",
    "StreamOptions",
    "UsageError",
    "VmpError",
    "__version__",
    "load",
    "open_source",
]

# OpenCV takes a while to import, and a program that only wants `vmp_edge.ops` needs none of it: imported at first use.
_MODULES = {
    "Bundle": "bundle",
    "Camera": "stream.cameras",
    "Cameras": "stream.cameras",
    "Event": "events",
    "EventDetector": "events",
    "EventRule": "events",
    "Gallery": "gallery",
    "Prediction": "prediction",
    "Preprocessing": "preprocessing",
    "Recognizer": "recognizer",
    "Results": "results",
    "Smoothing": "stream.smoothing",
    "Statistics": "stream",
    "Stream": "stream",
    "StreamOptions": "stream",
    "load": "loading",
    "open_source": "sources",
}

_SUBPACKAGES = ("models", "ops")


if not TYPE_CHECKING:  # type checkers would take every unknown name for one of any type

    def __getattr__(name: str) -> Any:
        if name in _SUBPACKAGES:
            return _import_with_torch(f"{__name__}.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def _import_with_torch(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name != "torch":
            raise
        from .installation import install_command

        raise MissingDependencyError(
            f"{name} needs PyTorch, which is not installed; run: {install_command('compile')}"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
