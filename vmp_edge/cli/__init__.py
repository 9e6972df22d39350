"""The command line: `vmp-edge build | train | run | serve | enroll | evaluate | bench | verify | ...`.

Exit codes: 0 done, 1 the work failed, 2 wrong usage; stopped by Ctrl-C 130, by a termination signal 143, by the end of
the session 129.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..errors import UsageError, VmpError
from ..installation import PACKAGE, missing_module, other_checkout
from ..masking import without_secrets
from .arguments import Parser, WrongArgumentsError
from .output import message, print_json
from .stopping import exit_code, stoppable
from .streams import Output, OutputLostError, safe_streams

__all__ = ["COMMANDS", "Parser", "guarded", "main", "program"]

COMMANDS = (
    *("build", "train", "pretrain", "run", "serve", "enroll", "embed", "evaluate", "bench", "verify", "models"),
    *("targets", "info", "doctor"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name. None takes the arguments of the process.

    Returns:
        The exit code.
    """

    def run(args: argparse.Namespace) -> int:
        if args.command == "build" and (other := other_checkout()) is not None:
            message(f"this is the vmp-edge of {PACKAGE.parent}, not that of the checkout in this folder ({other})")
        return int(args.run(args))

    return program(_make_parser, run, argv)


def _make_parser() -> Parser:
    parser = Parser(prog="vmp-edge", description="Streaming action recognition on devices.")
    parser.add_argument("--version", action="version", version=f"vmp-edge {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"vmp_edge.cli.{name}").add_parser(subparsers)
    return parser


def program(
    make_parser: Callable[[], argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse a program's arguments and run it, `guarded`.

    Args:
        make_parser: Makes the parser of the arguments.
        run: The program.
        argv: The arguments. None takes the arguments of the process.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if argv is None else argv
    known = argparse.Namespace(json="--json" in words, words=words)  # before the arguments are parsed
    return guarded(lambda _: run(make_parser().parse_args(words)), known)


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command so that every expected failure is one line on stderr (and, with `--json`, one object on stdout).

    Args:
        run: The command.
        args: Its arguments.

    Returns:
        The exit code.
    """
    with safe_streams(), stoppable() as stopping:
        try:
            code, failure = _outcome(run, args)
            stopping.over = True
            if failure is not None and getattr(args, "json", False):
                print_json({"error": failure})
            sys.stdout.flush()
        except OutputLostError as error:
            stopping.over = True
            if not error.reader_is_gone:
                message(str(error))
            return 1
    return code


def _outcome(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> tuple[int, str | None]:
    """Run a command, and return its exit code and the failure that it ended with, which was printed by then."""
    try:
        return run(args), None
    except WrongArgumentsError as error:
        return 2, error.text
    except SystemExit as stop:  # argparse has printed the help or the version
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None), None
    except VmpError as error:
        return 2 if isinstance(error, UsageError) else 1, _tell(without_secrets(" ".join(str(error).split())))
    except ImportError as error:
        builds = getattr(args, "words", [])[:1] in (["build"], ["train"], ["pretrain"])
        if (text := missing_module(error, "compile" if builds else "")) is None:
            raise
        return 1, _tell(text)
    except OutputLostError:
        raise
    except KeyboardInterrupt as stop:
        code, text = exit_code(stop), _tell("stopped")
        has_printed = isinstance(sys.stdout, Output) and sys.stdout.objects
        return code, None if has_printed else text


def _tell(failure: str) -> str:
    """Print a failure and return it. After that, one to write it on the standard output, too, is no other failure."""
    message(failure)
    if isinstance(sys.stdout, Output):
        sys.stdout.needed = False
    return failure
