"""Runs commands of the command line, in the test's own process or in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys

from bundles import SUPPORT
from processes import heed_interrupts

from vmp_edge.cli import main

RUN = "from vmp_edge.cli import main; sys.exit(main(sys.argv[1:]))"

PROGRAM = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import brightness_engine
brightness_engine.register()
"""


def run(capsys, *arguments):
    """Run a command in this process. Return its exit code, its lines on stdout, and its lines on stderr."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def start(code, *arguments, binary=False, **options):
    """Start Python code in a process of its own, with the small engine.

    Args:
        code: Python code. `RUN` is the command line.
        arguments: The program's arguments.
        binary: True if the pipes are bytes.
        options: Further options of `subprocess.Popen`. Pipes are the default.
    """
    command = [sys.executable, "-c", PROGRAM + code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": not binary}
    return subprocess.Popen(command, preexec_fn=heed_interrupts, **{**pipes, **options})


def last_json(lines):
    """Return the object that the last line holds."""
    return json.loads(lines[-1])


def results_of(lines):
    """Return the results and the summary that `vmp-edge run --json` has printed."""
    return [json.loads(line) for line in lines[:-1]], last_json(lines)["summary"]
