"""Train small models on labelled videos by cross-validation, to measure on real actions what quantising costs.

A run that was stopped resumes when the same command is given again. With ``--teacher DIR``, the output folder of an
earlier run on the same folds, each fold's model also learns from that run's model of the fold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vmp_edge.cli.output import remark, say
from vmp_edge.cli.stopping import exit_code, stoppable
from vmp_edge.cli.streams import safe_streams
from vmp_edge.errors import UsageError, VmpError
from vmp_edge.progress import Bar

from .. import clipset
from ..train.recipe import recipe_options
from .train import ActionsTraining, train


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vmp_edge.calibration.actions", description=__doc__)
    parser.add_argument("--data", required=True, help="a folder of class folders, or a CSV with path and label")
    parser.add_argument(
        "--group",
        default="group",
        help="the CSV's column that names groups of videos to keep together (default: group)",
    )
    parser.add_argument(
        "--folds", type=int, default=5, help="number of folds (default: 5); a CSV with folds keeps its own"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for models, folds and results")
    parser.add_argument("--one-geometry", action="store_true", help="cut all videos to one size and length first")
    parser.add_argument("--workers", type=int, help="processes that decode (default: all cores)")
    options, fields = recipe_options(parser, ActionsTraining, arguments)
    try:
        recipe = ActionsTraining(**fields)
        clips = clipset.read(options.data, options.group)
        clips = clips if clips.folds else clips.split(options.folds, recipe.seed)
        results = train(recipe, clips, options.output, options.one_geometry, Bar, options.workers)
    except VmpError as error:
        remark(str(error))
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stop:
        remark("stopped; the same command resumes after the last complete epoch")
        return exit_code(stop)
    for video in results["skipped"]:
        remark(f"left out: {video['path']}: {video['reason']}")
    for fold, value in results["folds"].items():
        say(f"fold {fold}: {100 * value:.1f}% top-1")
    say(
        f"mean {100 * results['folds_mean']:.1f}%, of {results['clips']} videos; geometry alone "
        f"{100 * results['geometry_control']:.1f}%"
    )
    return 0


if __name__ == "__main__":
    with safe_streams(), stoppable():
        raise SystemExit(main())
