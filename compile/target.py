"""Targets: a device kind each, one YAML file in ``targets/`` each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vmp_edge.errors import UsageError

FOLDER = Path(__file__).parent / "targets"


@dataclass(frozen=True)
class Target:
    """A device kind.

    Attributes:
        name: the YAML file's name.
        description: one line for people.
        machine: the processor architecture that a bundle needs, as `vmp_edge.manifest.host_machine` names it, or
            ``host`` for that of the building machine.
        engine: what executes its bundles unless the user says otherwise.
        engines: all that can.
        precisions: those that can be asked for, the default first.
        verified: what was verified, by the machine that it was verified on.
    """

    name: str
    description: str
    machine: str
    engine: str
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    verified: dict[str, str]


def names() -> list[str]:
    """All targets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Target:
    """Read a target.

    Raises:
        UsageError: there is no such target.
    """
    if name not in names():
        raise UsageError(f"unknown target {name!r}; known are {', '.join(names())}")
    entry: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return Target(
        name=name,
        description=entry["description"],
        machine=entry["machine"],
        engine=entry["engine"],
        engines=tuple(entry["engines"]),
        precisions=tuple(entry["precisions"]),
        verified=entry["verified"],
    )


def check_choice(target: Target, engine: str, precision: str) -> None:
    """Whether a target has an engine and a precision.

    Raises:
        UsageError: it does not; the text says what it has.
    """
    if engine not in target.engines:
        raise UsageError(f"target {target.name} has no engine {engine!r}; it has {', '.join(target.engines)}")
    if precision not in target.precisions:
        raise UsageError(f"target {target.name} has no precision {precision!r}; it has {', '.join(target.precisions)}")
