"""`vmp-edge evaluate`: measures how well a bundle recognises labelled videos, and how far two bundles agree."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..files import check_writable
from ..formatting import interval, milliseconds, number, percent, points, quantity
from ..text import printable
from .options import add_gallery_options, add_threads_option, add_workers_option, check_workers
from .output import add_json_option, message, print_json, progress_bar, remark, say
from .shared import announce, sharing, wait_for_others

if TYPE_CHECKING:
    from vmp_edge.calibration.measure import Comparison, Evaluation
    from vmp_edge.calibration.sharing import Share

EPILOG = """data:
  DIR        a folder with a folder of videos for each label, named as the bundle's labels
  FILE.csv   the columns path, label and, if wanted, fold; paths are relative to the file

folds:
  vmp-edge evaluate BUNDLE --data clips.csv --fold 2                only the videos of fold 2
  vmp-edge evaluate 'build/fold-{fold}' --data clips.csv            each fold's videos by the bundle of that fold

several machines: under torchrun or srun each process takes its share, and the last one gives the result. They need one
bundle, the same videos and a common working folder.

examples:
  vmp-edge evaluate build/host --data clips --report report.html
  vmp-edge evaluate build/int8 --data clips --compare build/fp32 --json
  vmp-edge evaluate build/mm --gallery actions.gallery.npz --data clips      classes by texts: zero-shot accuracy
  vmp-edge evaluate build/host --data long-videos --sampling dense --clips 5
  vmp-edge evaluate build/host --data k400-val --views 4x3       as published numbers are measured
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
    parser.add_argument("videos", nargs="?", metavar="DATA", help="the labelled videos, see below")
    parser.add_argument("--data", metavar="DIR|CSV", help="the same as DATA")
    parser.add_argument(
        "--compare", metavar="BUNDLE2", help="another bundle with the same labels; both run on the same clips, in turns"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML report with charts and the worst clips"
    )
    parser.add_argument(
        "--sampling",
        choices=["uniform", "dense"],
        help="uniform: a clip's frames are spread over the whole video; dense: a window as a stream sees it, sampled "
        "as the bundle says (default: uniform, and top-1 for dense beside it)",
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=1,
        metavar="N",
        help="number of clips of each video, whose scores are averaged (default: 1)",
    )
    parser.add_argument(
        "--views",
        type=_views,
        metavar="CLIPSxCROPS",
        help="average over clips and crops as the published evaluation does: 4x3 takes 4 clips with other offsets, and "
        "of each the left, centre and right square",
    )
    parser.add_argument("--fold", type=int, metavar="K", help="use only the videos of this fold of the CSV")
    add_gallery_options(parser)
    add_threads_option(parser)
    add_workers_option(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def _views(text: str) -> tuple[int, int]:
    """Parse numbers of clips and crops, such as 4x3."""
    found = re.fullmatch(r"([1-9][0-9]{0,2})x([1-9][0-9]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of clips and one of crops, such as 4x3")
    return int(found[1]), int(found[2])


def run(args: argparse.Namespace) -> int:
    """Measure the bundle, print the results, and write the report."""
    from vmp_edge.calibration.sharing import Share, SharePendingError

    share = Share.of_environment()
    with sharing(share):
        try:
            return _run(args, share)
        except SharePendingError as pending:
            return wait_for_others(share, pending, {"data": args.data or args.videos}, args.json)


def _run(args: argparse.Namespace, share: Share) -> int:
    from vmp_edge.calibration import clipset, report
    from vmp_edge.calibration.decoding import Sampling
    from vmp_edge.calibration.measure import Comparison, NoUsableVideoError, evaluate_bundles
    from vmp_edge.calibration.timing import ROUNDS

    if (args.data is None) == (args.videos is None):
        raise UsageError("give the labelled videos once: a folder or a CSV behind the bundle, or with --data")
    data = args.data or args.videos
    check_workers(args.workers)
    if args.gallery is not None and args.compare is not None:
        raise UsageError("--gallery is for one bundle: a gallery holds features of one model; leave out --compare")
    if args.views is not None and (args.sampling is not None or args.clips != 1):
        raise UsageError("--views says how clips are sampled: leave out --sampling and --clips")
    sampling = Sampling(args.sampling or "uniform", args.clips)
    if args.views is not None:
        sampling = Sampling("published", *args.views)
    if args.report is not None:
        report.check(args.report)
        check_writable(args.report, "the report")
    clips = clipset.read(data)
    if (note := clips.note()) is not None:
        message(note)
    if args.fold is not None:
        clips = clips.fold(args.fold)
    announce(share, clips)
    bundles = [args.bundle] + ([args.compare] if args.compare is not None else [])
    try:
        evaluation, *others = evaluate_bundles(
            bundles,
            clips,
            sampling,
            threads=args.threads,
            workers=args.workers,
            progress=progress_bar,
            rounds=ROUNDS,
            stream=args.sampling is None,
            gallery=args.gallery,
            threshold=args.threshold,
            share=share,
        )
    except NoUsableVideoError as error:
        if args.report is not None:  # it says why no video can be used
            report.write(report.Report(error.evaluations[0], data=data), args.report)
        raise
    comparison = Comparison(evaluation, others[0]) if others else None
    result = {
        "data": data,
        "sampling": {
            "mode": sampling.mode,
            "clips": sampling.clips,
            **({"crops": sampling.crops} if args.views is not None else {}),
        },
        **evaluation.to_dict(),
        "compare": comparison.to_dict() if comparison else None,
        "report": None if args.report is None else str(args.report),
    }
    _print(evaluation, comparison)
    if args.report is not None:
        report.write(report.Report(evaluation, others[0] if others else None, data=data), args.report)
        say(f"report: {args.report}")
    if args.json:
        print_json(result)
    return 0


def _print(evaluation: Evaluation, comparison: Comparison | None) -> None:
    for video in evaluation.skipped:
        remark(f"left out: {video.path}: {video.reason}")
    for video in evaluation.damaged:
        remark(f"partly damaged: {video.path}: {video.reason}")
    left_out = f", {len(evaluation.skipped)} left out" if evaluation.skipped else ""
    count = quantity(len(evaluation.entries), "video")
    if evaluation.labelled:
        _print_accuracy(evaluation, f"{count}{left_out}")
    else:
        say(f"{evaluation.name}: {count} without labels{left_out}")
    _print_timing(evaluation)
    if comparison is not None:
        _print_comparison(comparison)


def _print_accuracy(evaluation: Evaluation, count: str) -> None:
    top5 = "" if evaluation.top5 is None else f", top-5 {percent(evaluation.top5)}"
    say(f"{evaluation.name}: top-1 {percent(evaluation.top1)}{top5} of {count}")
    say(f"{'95% interval':>24}  {interval(evaluation.interval)} (Wilson)")
    controls = f"{percent(evaluation.chance)} by chance"
    if evaluation.majority is not None:
        controls += f", {percent(evaluation.majority[1])} by always saying {evaluation.majority[0]}"
    say(f"{'for comparison':>24}  {controls}")
    if (stream := evaluation.stream) is not None:
        short = f", {len(stream.skipped)} too short or too slow" if stream.skipped else ""
        seen = f"{quantity(len(stream.entries), 'video')}{short}"
        top1 = f"top-1 {percent(stream.top1)} of {seen}, 95% interval {interval(stream.interval)}"
        say(f"{'as a stream sees it':>24}  {top1 if stream.entries else f'no window of {seen}'}")
    for label, row in evaluation.by_label().items():
        mistake = _most_frequent_mistake(evaluation, label)
        say(f"{printable(label):>24}  {percent(row['recall']):>6} of {row['clips']}{mistake}")
    for fold, share in evaluation.by_fold().items():
        say(f"{f'fold {fold}':>24}  {percent(share):>6}")


def _print_timing(evaluation: Evaluation) -> None:
    timing = evaluation.timing
    if timing is None:
        return
    low, middle, high = (milliseconds(1e3 * value) for value in timing.quartiles)
    doubt = f"; {timing.doubt}" if timing.doubt else ""
    rounds = quantity(len(timing.seconds), "round")
    say(f"{'engine':>24}  {middle} median, half of the runs {low} to {high}, {rounds}{doubt}")


def _most_frequent_mistake(evaluation: Evaluation, label: str) -> str:
    """Return the words for what a label is mistaken for most often, or an empty text if there are no mistakes."""
    row = evaluation.confusion[evaluation.labels.index(label)].copy()
    row[evaluation.labels.index(label)] = 0
    return f", else mostly {evaluation.labels[row.argmax()]}" if row.any() else ""


def _print_comparison(comparison: Comparison) -> None:
    subject, baseline, speed = comparison.subject, comparison.baseline, comparison.speed
    agreement = f"agrees on {percent(comparison.agreement)}, 95% interval {interval(comparison.agreement_interval)}"
    if subject.labelled:
        say(
            f"{baseline.name}: top-1 {percent(baseline.top1)}; {subject.name} has "
            f"{points(0 - comparison.drop)}, {agreement}"
        )
    else:
        say(f"{baseline.name}: {subject.name} {agreement}")
    if speed is not None:
        low, middle, high = map(number, speed.quartiles)
        rounds = f"{middle} times its speed, half of the rounds {low} to {high}, {quantity(speed.rounds, 'round')}"
        doubt = f"; {speed.doubt}" if speed.doubt else ""
        say(f"{'speed':>24}  {rounds}{doubt}")
    for i in comparison.differing:
        label, baseline_label = (model.labels[model.predictions[i]] for model in (subject, baseline))
        entry = subject.entries[i]
        truth = f" (it is {entry.label})" if subject.labelled else ""
        say(f"{'differs':>24}  {entry.path}: {label}, not {baseline_label}{truth}")
