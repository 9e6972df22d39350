"""Build a bundle: ``python compile/build.py --target host`` is ``vmp-edge build --target host``.

It works from a checkout, installed or not, if what the extra ``compile`` installs is there.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]  # of the checkout, or the package that this file is installed in
_PACKAGE = _ROOT / "vmp_edge" if (_ROOT / "vmp_edge").is_dir() else _ROOT
if not __package__:  # run by its path
    runpy.run_path(str(_PACKAGE / "_checkout.py"))["use"](__file__, "compile")

from vmp_edge.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
