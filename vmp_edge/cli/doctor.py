"""`vmp-edge doctor`: says which of the things that bundles need this device has."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..bundle.reading import Bundle
from ..doctor import Finding, examine_bundle, examine_machine
from .output import add_json_option, print_json, say

MARKS = {True: "ok", False: "MISSING", None: ""}


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="say which of the things that bundles need this device has",
        description="Say in a line each what this device has. For a bundle, also say what it needs and whether it is "
        "there. The exit code is 1 if something is missing.",
    )
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="a bundle's folder (default: none)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine the device, and the bundle if there is one, and print the findings."""
    findings = examine_machine()
    bundle = Bundle.open(args.bundle, any_machine=True) if args.bundle else None
    needs = examine_bundle(bundle) if bundle else []
    missing = [finding for finding in needs if finding.found is False]
    if args.json:
        groups = {"machine": findings, "bundle": needs}
        report = {name: [dataclasses.asdict(finding) for finding in group] for name, group in groups.items()}
        print_json({**report, "missing": [finding.subject for finding in missing]})
        return int(bool(missing))
    _print("this machine", findings)
    if bundle:
        _print(f"{bundle.path} ({bundle.manifest.name} for {bundle.manifest.target})", needs)
        say(f"{len(missing)} missing" if missing else "nothing is missing")
    return int(bool(missing))


def _print(title: str, findings: list[Finding]) -> None:
    say(f"{title}:")
    for finding in findings:
        say(f"  {MARKS[finding.found]:>7}  {finding.subject}: {finding.text}")
