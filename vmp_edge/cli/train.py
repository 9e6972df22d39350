"""`vmp-edge train`: from a folder of clips to a bundle that recognises their classes, and to how good it is."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .options import add_learning_options, add_size_options
from .output import add_json_option, message, print_json, progress_bar, say

EPILOG = """clips:
  DIR        a folder with a folder of videos for each class: clips/wave/*.mp4, clips/clap/*.mp4, ...
  FILE.csv   the columns path and label and, if wanted, group (who or where) and fold; paths are relative to the file

The output folder gets model.pth, bundle/ (for vmp-edge run), report.html, curves.png, confusion.png and results.json.
Ctrl-C stops, and the same command goes on. With torchrun, several GPUs or machines train together.

examples:
  vmp-edge train clips --output runs/gestures                          from egomotion-nano, a small model for any CPU
  vmp-edge train clips --output runs/gestures --minutes 10
  vmp-edge train clips.csv --output runs/gestures --group person       nobody is on both sides of the test
  vmp-edge train clips --output runs/quick --head-only --init videomamba-tiny-k400-8x224
  vmp-edge train clips.csv --output runs/folds --folds 5 --no-final    measure only, by cross-validation
"""
_OWN_OPTION = ("epochs", "teacher")  # of the recipe's fields, those that have an option of their own


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a model on your own clips, measure it, and build its bundle",
        description="Train a model on clips of your own classes. A part of the clips is held out to measure how good "
        "it is; the final model learns from all of them and becomes a bundle for this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="the clips, see below")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for everything that is made")
    _add_model_options(parser.add_argument_group("model"))
    _add_training_options(parser.add_argument_group("training"))
    _add_measuring_options(parser.add_argument_group("clips and measuring"))
    parser.add_argument("--engine", help="what executes the bundles (default: the host target's)")
    add_learning_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--init",
        default="egomotion-nano",
        metavar="MODEL|CHECKPOINT",
        help="the model to start from: one of ours, a published one (vmp-edge models), a file, the output of an "
        "earlier training, or scratch for random weights (default: egomotion-nano)",
    )
    add_size_options(group)
    group.add_argument(
        "--span",
        type=float,
        metavar="SECONDS",
        help="seconds that a window spans (default: as nine of ten clips last, at most 4)",
    )


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--head-only",
        action="store_true",
        help="train only the last layer: a minute for 100 clips, good with a start that knows actions",
    )
    group.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE|DIR",
        help="learn also from a trained model of the same classes, of another size: its file, or the output of its "
        "training",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="M", help="how long all of it may take")
    length.add_argument("--epochs", type=int, metavar="N", help="passes over the clips (default: by their number)")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set anything else of the recipe, such as learning_rate=1e-4, mixup=0.2, mirror=false or seed=1; `--set "
        "help` lists all",
    )


def _add_measuring_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--group",
        metavar="COLUMN",
        help="the CSV's column that says which clips belong together, of one person or place for instance: no group is "
        "on both sides (default: group, if there is one)",
    )
    group.add_argument(
        "--folds", type=int, metavar="K", help="measure by cross-validation: K trainings, each clip held out once"
    )
    group.add_argument("--no-final", action="store_true", help="with --folds: measure only, train no final model")
    group.add_argument("--one-geometry", action="store_true", help="cut all clips to one size and length first")


def run(args: argparse.Namespace) -> int:
    """Train, say how good the result is, and what to do with it."""
    import torch

    from vmp_edge.calibration.train import command, parallel, results
    from vmp_edge.calibration.train.console import SILENCE, Console
    from vmp_edge.calibration.train.settings import Settings

    if "help" in args.set:
        _list_recipe()
        return 0
    settings = Settings(
        clips=args.clips,
        output=args.output,
        init=args.init,
        frames=args.frames,
        image_size=args.image_size,
        span=args.span,
        head_only=args.head_only,
        teacher=args.teacher,
        minutes=args.minutes,
        epochs=args.epochs,
        group=args.group,
        folds=args.folds,
        final=not args.no_final,
        one_geometry=args.one_geometry,
        engine=args.engine,
        workers=args.workers,
        recipe=_recipe_values(args.set),
    )
    if args.threads is not None:
        if args.threads < 1:
            raise UsageError(f"--threads is {args.threads}; it must be at least 1")
        torch.set_num_threads(args.threads)
    with parallel.processes() as part:
        first = part.index == 0
        console = Console(say, message, progress_bar) if first else SILENCE
        try:
            values = command.run(settings, console)
        except KeyboardInterrupt:
            console.message("the same command goes on where this one stopped")
            raise
    if not first:
        return 0
    _print_end(settings, values, results)
    if args.json:
        print_json(values)
    return 0


def _print_end(settings: Any, values: dict[str, Any], results: Any) -> None:
    say(f"report: {settings.output / results.REPORT}")
    if "bundle" in values:
        say("next:")
        for words, text in results.next_commands(settings, values["all_clips"]):
            say(f"{words:>24}  {text}")
    message(results.time_line(values["seconds"], values["foretold_seconds"]))


def _recipe_values(texts: list[str]) -> dict[str, Any]:
    """Parse `--set` options.

    Raises:
        UsageError: A name is unknown, or its value is of another kind.
    """
    from vmp_edge.calibration.train.recipe import ClipsRecipe

    kinds: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(ClipsRecipe)}
    values: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name in _OWN_OPTION:
            raise UsageError(f"--set {text}: give --{name} instead")
        if name not in kinds or not sign:
            known = ", ".join(sorted(set(kinds) - set(_OWN_OPTION)))
            raise UsageError(f"--set {text}: give NAME=VALUE; the names are {known}")
        try:
            values[name] = _boolean(value) if kinds[name] is bool else kinds[name](value)
        except ValueError as error:
            raise UsageError(f"--set {text}: {value!r} is no value for {name}") from error
    return values


def _boolean(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _list_recipe() -> None:
    """Print the names that `--set` takes, with their usual values."""
    from vmp_edge.calibration.train.recipe import ClipsRecipe

    for field in dataclasses.fields(ClipsRecipe):
        if field.name not in _OWN_OPTION:
            say(f"{field.name:>24}  {field.default}")
