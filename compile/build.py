"""Build a bundle: ``python compile/build.py --target host`` is ``vmp-edge build --target host``."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder first, where executorch.py and its like would hide the libraries of the same names.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

from vmp_edge.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
