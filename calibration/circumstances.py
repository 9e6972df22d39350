"""The circumstances of a measurement: when, by which command, with which tools, on which machine."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from vmp_edge import __version__
from vmp_edge.formatting import quantity
from vmp_edge.machine import cpu_model, usable_cpu_count
from vmp_edge.masking import masked

from .evaluation import Evaluation

_OWN_NAMES = ("vmp-edge", "__main__.py")  # of the program in `sys.argv`


def now() -> datetime:
    """Return the time, with the time zone of this machine."""
    return datetime.now().astimezone()


def command_line(arguments: Sequence[str]) -> str:
    """Return a command as it can be typed, with the secrets in its arguments masked.

    Args:
        arguments: The program and its arguments, as in `sys.argv`.
    """
    if not arguments or not arguments[0] or arguments[0].startswith("-"):
        return "typed into Python"
    program = ["vmp-edge"] if Path(arguments[0]).name in _OWN_NAMES else ["python", arguments[0]]
    return shlex.join([*program, *(masked(argument) for argument in arguments[1:])])


def describe(models: Sequence[Evaluation], command: Sequence[str], date: datetime) -> dict[str, str]:
    """Return the circumstances by name, for a table.

    Args:
        models: The models that were measured.
        command: See `command_line`.
        date: The time of the measurement.
    """
    rows = {
        "date": date.strftime("%Y-%m-%d %H:%M %Z").strip(),
        "command": command_line(command),
        "machine": f"{cpu_model()}, {quantity(usable_cpu_count(), 'usable CPU')}, {platform.system()} "
        f"{platform.machine()}",
        "versions": f"vmp-edge {__version__}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"OpenCV {cv2.__version__}",
    }
    for model in models:
        rows[f"bundle {model.name}" if model.facts.get("sha256") else f"model {model.name}"] = _identity(model)
    return rows


def _identity(model: Evaluation) -> str:
    facts = model.facts
    parts = [str(facts["model"])] if facts.get("model") else []
    parts += [f"program's SHA-256 {facts['sha256'][:16]}"] if facts.get("sha256") else []
    tools = facts.get("tools") or {}
    parts += ["made by " + ", ".join(f"{tool} {version}" for tool, version in tools.items())] if tools else []
    return "; ".join(parts) or "no further facts"
