"""`vmp-edge serve` in a process of its own, with the small engine."""

from __future__ import annotations

import os
import subprocess
import sys

from bundles import SUPPORT
from processes import heed_interrupts

PROGRAM = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import brightness_engine
brightness_engine.register()
from vmp_edge.cli import main
sys.exit(main(sys.argv[1:]))
"""


def serve(bundle, *arguments, before=""):
    """Starts it on a free port, with `--json` and `--loop`, and without a token of the environment's.

    `before` is code that the process runs first.
    """
    command = [sys.executable, "-c", before + PROGRAM, "serve", bundle, "--port", "0", "--json", "--loop", *arguments]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
        env={**os.environ, "VMP_EDGE_TOKEN": ""},
    )
