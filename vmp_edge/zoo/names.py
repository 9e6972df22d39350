"""The names of all models that can be built, and what to suggest for one that there is not."""

from __future__ import annotations

import difflib
import re

from ..errors import UsageError
from ..models import own
from ..models.options import PRESETS
from .published import find_file, published

_MOST = 3  # suggestions


def all_names() -> tuple[str, ...]:
    """Return the names of our own models, of the published ones and of the presets, each once."""
    return tuple(dict.fromkeys((*own.names(), *(model.name for model in published()), *PRESETS)))


def require_known(name: str) -> None:
    """Check that there is a model of this name.

    Raises:
        UsageError: There is none; the text suggests similar ones.
    """
    if name in all_names():
        return
    if meant := similar(name):
        what = f"did you mean {' or '.join(meant)}?"
    elif re.search(r"[/\\]|\.(pth|pt|safetensors|bin)$", name):
        what = "give a file with --checkpoint"
    else:
        what = "vmp-edge models lists what there is"
    raise UsageError(f"unknown model {name!r:.100}: {what}")


def similar(name: str) -> list[str]:
    """Return at most three names that a user may have meant, the likeliest first."""
    stem = name.rpartition("/")[2].removesuffix(".pth")
    if (model := find_file(f"{stem}.pth")) is not None:
        return [model.name]
    plain = re.sub(r"[\s_]+", "-", stem.strip().lower())
    if plain in all_names():
        return [plain]
    return difflib.get_close_matches(plain, all_names(), _MOST, 0.75)
