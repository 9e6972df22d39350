"""`python -m vmp_edge` is `vmp-edge`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
