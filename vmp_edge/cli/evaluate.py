"""`vmp-edge evaluate`: how well a bundle recognises labelled videos, and how far two bundles agree."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .output import add_json_option, print_json, progress_bar

if TYPE_CHECKING:
    from vmp_edge.calibration.measure import Comparison, Evaluation

EPILOG = """data:
  DIR        a folder with a folder of videos for each label, named as the bundle's labels
  FILE.csv   the columns path, label and, if wanted, fold; paths are relative to the file

folds:
  vmp-edge evaluate BUNDLE --data clips.csv --fold 2                only the videos of fold 2
  vmp-edge evaluate 'build/fold-{fold}' --data clips.csv            each fold's videos by the bundle of that fold

examples:
  vmp-edge evaluate build/host --data clips --report report.html
  vmp-edge evaluate build/int8 --data clips --compare build/fp32 --json
  vmp-edge evaluate build/host --data long-videos --sampling dense --clips 5
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="measure how well a bundle recognises labelled videos, and compare two bundles",
        description="Run labelled videos through a bundle: top-1, top-5, accuracy by label, confusion matrix. Videos "
        "that cannot be decoded, are empty or too short are named and left out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder; may have {fold} in it")
    parser.add_argument("--data", required=True, metavar="DIR|CSV", help="the labelled videos, see below")
    parser.add_argument(
        "--compare", metavar="BUNDLE2", help="another bundle with the same labels: both on the same clips, in turns"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write an HTML file with plots and the worst clips")
    parser.add_argument(
        "--sampling",
        choices=["uniform", "dense"],
        default="uniform",
        help="uniform: a clip's frames are spread over the video; dense: a window at the bundle's frame rate "
        "(default: uniform)",
    )
    parser.add_argument(
        "--clips", type=int, default=1, metavar="N", help="clips of a video, whose scores are averaged (default: 1)"
    )
    parser.add_argument("--fold", type=int, metavar="K", help="only the videos of this fold of the CSV")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the engine (default: the bundle's)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that decode; 0 decodes in this one (default: all cores)"
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, prints, and writes the report."""
    from vmp_edge.calibration import clipset, report
    from vmp_edge.calibration.decoding import Sampling
    from vmp_edge.calibration.measure import Comparison, evaluate_bundles

    if args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers is {args.workers}; it must be at least 0")
    sampling = Sampling(args.sampling, args.clips)
    if args.report is not None:
        report.check(args.report)
    clips = clipset.read(args.data)
    if args.fold is not None:
        clips = clips.fold(args.fold)
    bundles = [args.bundle] + ([args.compare] if args.compare is not None else [])
    found, *others = evaluate_bundles(
        bundles, clips, sampling, threads=args.threads, workers=args.workers, progress=progress_bar
    )
    comparison = Comparison(found, others[0]) if others else None
    result = {
        "data": args.data,
        "sampling": {"mode": sampling.mode, "clips": sampling.clips},
        **found.to_dict(),
        "compare": comparison.to_dict() if comparison else None,
        "report": None if args.report is None else str(args.report),
    }
    _say(found, comparison)
    if args.report is not None:
        report.write(report.Report(found, others[0] if others else None, data=args.data), args.report)
        print(f"report: {args.report}")
    sys.stdout.flush()
    if args.json:
        print_json(result)
    return 0


def _say(found: Evaluation, comparison: Comparison | None) -> None:
    for one in found.skipped:
        print(f"left out: {one.path}: {one.reason}", file=sys.stderr)
    left_out = f", {len(found.skipped)} left out" if found.skipped else ""
    top5 = "" if found.top5 is None else f", top-5 {100 * found.top5:.1f}%"
    print(f"{found.name}: top-1 {100 * found.top1:.1f}%{top5} of {len(found.entries)} videos{left_out}")
    for label, row in found.by_label().items():
        mistaken = _mistaken(found, label)
        print(f"{label:>24}  {100 * row['recall']:5.1f}% of {row['clips']}{mistaken}")
    for fold, share in found.by_fold().items():
        print(f"{f'fold {fold}':>24}  {100 * share:5.1f}%")
    print(f"{'engine':>24}  {found.milliseconds['p50']:.2f} ms median, {found.milliseconds['p95']:.2f} ms p95")
    if comparison is not None:
        _say_comparison(comparison)


def _mistaken(found: Evaluation, label: str) -> str:
    """What a label is taken for most often, if for anything."""
    row = found.confusion[found.labels.index(label)].copy()
    row[found.labels.index(label)] = 0
    return f", else mostly {found.labels[row.argmax()]}" if row.any() else ""


def _say_comparison(comparison: Comparison) -> None:
    found, baseline = comparison.subject, comparison.baseline
    print(
        f"{baseline.name}: top-1 {100 * baseline.top1:.1f}%; {found.name} has {0 - comparison.drop:+.1f} points, "
        f"agrees on {100 * comparison.agreement:.1f}%, is {comparison.speed:.2f} times as fast"
    )
    for i in comparison.differing:
        ours, theirs = (model.labels[model.predictions[i]] for model in (found, baseline))
        print(f"{'differs':>24}  {found.entries[i].path}: {ours}, not {theirs} (it is {found.entries[i].label})")
