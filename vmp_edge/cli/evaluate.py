"""`vmp-edge evaluate`: measures how well a bundle recognises labelled videos, and how far two bundles agree."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .options import add_threads_option
from .output import add_json_option, message, print_json, progress_bar

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
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="measure how well a bundle recognises labelled videos, and compare two bundles",
        description="Run labelled videos through a bundle, and print top-1, top-5, the accuracy of each label and what "
        "it is mistaken for. Videos that cannot be decoded, are empty or too short are named and left out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the bundle's folder; it may contain {fold}")
    parser.add_argument("--data", required=True, metavar="DIR|CSV", help="the labelled videos, see below")
    parser.add_argument(
        "--compare", metavar="BUNDLE2", help="another bundle with the same labels; both run on the same clips, in turns"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML report with plots and the worst clips"
    )
    parser.add_argument(
        "--sampling",
        choices=["uniform", "dense"],
        default="uniform",
        help="uniform: a clip's frames are spread over the video; dense: a window at the bundle's frame rate "
        "(default: uniform)",
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=1,
        metavar="N",
        help="number of clips of each video, whose scores are averaged (default: 1)",
    )
    parser.add_argument("--fold", type=int, metavar="K", help="use only the videos of this fold of the CSV")
    add_threads_option(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes that decode; 0 decodes in this process (default: one a core)",
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the bundle, print the results, and write the report."""
    from vmp_edge.calibration import clipset, report
    from vmp_edge.calibration.decoding import Sampling
    from vmp_edge.calibration.measure import Comparison, evaluate_bundles

    if args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers is {args.workers}; it must be at least 0")
    sampling = Sampling(args.sampling, args.clips)
    if args.report is not None:
        report.check(args.report)
    clips = clipset.read(args.data)
    if (note := clips.note()) is not None:
        message(note)
    if args.fold is not None:
        clips = clips.fold(args.fold)
    bundles = [args.bundle] + ([args.compare] if args.compare is not None else [])
    evaluation, *others = evaluate_bundles(
        bundles, clips, sampling, threads=args.threads, workers=args.workers, progress=progress_bar
    )
    comparison = Comparison(evaluation, others[0]) if others else None
    result = {
        "data": args.data,
        "sampling": {"mode": sampling.mode, "clips": sampling.clips},
        **evaluation.to_dict(),
        "compare": comparison.to_dict() if comparison else None,
        "report": None if args.report is None else str(args.report),
    }
    _print(evaluation, comparison)
    if args.report is not None:
        report.write(report.Report(evaluation, others[0] if others else None, data=args.data), args.report)
        print(f"report: {args.report}")
    sys.stdout.flush()
    if args.json:
        print_json(result)
    return 0


def _print(evaluation: Evaluation, comparison: Comparison | None) -> None:
    for video in evaluation.skipped:
        print(f"left out: {video.path}: {video.reason}", file=sys.stderr)
    for video in evaluation.damaged:
        print(f"partly damaged: {video.path}: {video.reason}", file=sys.stderr)
    left_out = f", {len(evaluation.skipped)} left out" if evaluation.skipped else ""
    top5 = "" if evaluation.top5 is None else f", top-5 {100 * evaluation.top5:.1f}%"
    print(f"{evaluation.name}: top-1 {100 * evaluation.top1:.1f}%{top5} of {len(evaluation.entries)} videos{left_out}")
    for label, row in evaluation.by_label().items():
        print(f"{label:>24}  {100 * row['recall']:5.1f}% of {row['clips']}{_most_frequent_mistake(evaluation, label)}")
    for fold, share in evaluation.by_fold().items():
        print(f"{f'fold {fold}':>24}  {100 * share:5.1f}%")
    milliseconds = evaluation.milliseconds
    print(f"{'engine':>24}  {milliseconds['p50']:.2f} ms median, {milliseconds['p95']:.2f} ms p95")
    if comparison is not None:
        _print_comparison(comparison)


def _most_frequent_mistake(evaluation: Evaluation, label: str) -> str:
    """Return the words for what a label is mistaken for most often, or an empty text if there are no mistakes."""
    row = evaluation.confusion[evaluation.labels.index(label)].copy()
    row[evaluation.labels.index(label)] = 0
    return f", else mostly {evaluation.labels[row.argmax()]}" if row.any() else ""


def _print_comparison(comparison: Comparison) -> None:
    subject, baseline = comparison.subject, comparison.baseline
    print(
        f"{baseline.name}: top-1 {100 * baseline.top1:.1f}%; {subject.name} has {0 - comparison.drop:+.1f} points, "
        f"agrees on {100 * comparison.agreement:.1f}%, is {comparison.speed:.2f} times as fast"
    )
    for i in comparison.differing:
        label, baseline_label = (model.labels[model.predictions[i]] for model in (subject, baseline))
        entry = subject.entries[i]
        print(f"{'differs':>24}  {entry.path}: {label}, not {baseline_label} (it is {entry.label})")
