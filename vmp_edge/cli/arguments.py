"""`Parser`: argparse, with a mistake that `--json` can report, and without characters that a terminal would obey."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from ..masking import without_secrets
from ..text import printable


class WrongArgumentsError(SystemExit):
    """The arguments are wrong, which was printed.

    Args:
        text: What is wrong with them, one line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(2)
        self.text = text


class Parser(argparse.ArgumentParser):
    """Parses arguments as argparse does. Its subparsers are of this class, too."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and end the program with exit code 2."""
        text = without_secrets(" ".join(message.split()))
        self.print_usage(sys.stderr)
        self._print_message(f"{self.prog}: error: {text}", sys.stderr)
        raise WrongArgumentsError(text)

    def _print_message(self, message: str, file: Any = None) -> None:
        for line in message.splitlines():
            print(printable(line), file=file or sys.stderr)
