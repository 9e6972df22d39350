"""`vmp-edge embed`: writes the features of many videos to a file, for searching and clustering."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import check_writable
from ..formatting import quantity
from ..recognizer import load
from .options import add_threads_option, add_workers_option, check_workers
from .output import add_json_option, print_json, progress_bar, remark, say
from .shared import announce, sharing, wait_for_others

EPILOG = """examples:
  vmp-edge embed build/host videos --output videos.npz
  vmp-edge embed build/host a.mp4 b.mp4 list.csv --output some.npz
  torchrun --nproc-per-node 4 --no-python vmp-edge embed build/host videos --output videos.npz
  srun --ntasks 16 vmp-edge embed build/host videos --output videos.npz

The file has the arrays features (N, C), paths, labels, skipped, reasons and model:
  found = numpy.load("videos.npz"); found["features"] @ found["features"].T
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "embed",
        help="write the features of many videos to a file",
        description="Compute the features of videos, and write them to an .npz. Under torchrun or SLURM each process "
        "takes its share of the videos, and the last one puts them together.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder, built with --features")
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEOS", help="videos, folders of videos, or lists (.csv with path, label; .txt)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the file to write, an .npz")
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
        help="clips of each video, whose features are averaged (default: 1)",
    )
    add_threads_option(parser)
    add_workers_option(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compute the features, write them, and say what was left out."""
    from vmp_edge.calibration.decoding import Sampling
    from vmp_edge.calibration.embedding import embed, videos_of
    from vmp_edge.calibration.sharing import Share, SharePendingError

    check_workers(args.workers)
    if args.output.suffix.lower() != ".npz":
        raise UsageError(f"--output is {args.output}; its name must end in .npz")
    sampling, share = Sampling(args.sampling, args.clips), Share.of_environment()
    with sharing(share):
        check_writable(args.output, "the features")
        clips = videos_of(args.videos)
        announce(share, clips)
        try:
            with load(args.bundle, args.threads) as recognizer:
                embedding = embed(
                    recognizer, clips, sampling, args.output, share=share, workers=args.workers, progress=progress_bar
                )
        except SharePendingError as pending:
            return wait_for_others(share, pending, {"output": None}, args.json)
    for video in embedding.skipped:
        remark(f"left out: {video.path}: {video.reason}")
    count, size = embedding.features.shape
    left_out = f", {len(embedding.skipped)} left out" if embedding.skipped else ""
    say(f"{args.output}: {size} features of {quantity(count, 'video')}{left_out}")
    if args.json:
        skipped = [{"path": str(video.path), "reason": video.reason} for video in embedding.skipped]
        print_json({"output": str(args.output), "videos": count, "features": size, "skipped": skipped})
    return 0
