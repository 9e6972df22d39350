"""`vmp-edge doctor`: says which of the things that bundles need this device has."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bundle.reading import Bundle
from ..doctor import examine_bundle, examine_machine
from ..parts import EnginePart, ExtraPart, examine_engines, examine_extras, examine_tools
from .output import add_json_option, print_json, say

MARKS = {True: "ok", False: "MISSING", None: ""}


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="say which of the things that bundles need this device has",
        description="Say in a line each what this device has: the machine, the engines, each of which is tried, the "
        "extras and the tools. For a bundle, also say what it needs and whether it is there. The exit code is 1 if the "
        "bundle lacks something.",
    )
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="a bundle's folder (default: none)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine the device, and the bundle if there is one, and print the findings."""
    findings, engines, extras, tools = examine_machine(), examine_engines(), examine_extras(), examine_tools()
    bundle = Bundle.open(args.bundle, any_machine=True) if args.bundle else None
    needs = examine_bundle(bundle) if bundle else []
    missing = [finding for finding in needs if finding.found is False]
    if args.json:
        groups: dict[str, Sequence[Any]] = {"machine": findings, "engines": engines, "extras": extras, "tools": tools}
        groups["bundle"] = needs
        report = {name: [dataclasses.asdict(part) for part in group] for name, group in groups.items()}
        print_json({**report, "missing": [finding.subject for finding in missing]})
        return int(bool(missing))
    _print("this machine", [("", finding.subject, finding.text) for finding in findings])
    _print("engines, each tried", [(_engine_mark(part), part.name, part.text) for part in engines])
    _print("extras", [("ok" if part.installed else "", part.name, _extra_text(part)) for part in extras])
    _print("tools", [("ok" if tool.found else "", tool.name, tool.text) for tool in tools])
    if bundle:
        title = f"{bundle.path} ({bundle.manifest.name} for {bundle.manifest.target})"
        _print(title, [(MARKS[finding.found], finding.subject, finding.text) for finding in needs])
        say(f"{len(missing)} missing" if missing else "nothing is missing")
    return int(bool(missing))


def _engine_mark(part: EnginePart) -> str:
    return "ok" if part.works else "BROKEN" if part.installed else ""


def _extra_text(part: ExtraPart) -> str:
    return "installed" if part.installed else f"lacks {', '.join(part.missing)}; run: {part.command}"


def _print(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    if rows:
        say(f"{title}:")
    for mark, subject, text in rows:
        say(f"  {mark:>7}  {subject}: {text}")
