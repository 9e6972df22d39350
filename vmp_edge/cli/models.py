"""`vmp-edge models`: the models that can be built by their names."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..models.options import FAMILIES, PRESETS, SIZES
from ..zoo import Published, published
from .output import add_json_option, print_json, say

EPILOG = """examples:
  vmp-edge models                                  everything
  vmp-edge models --data k400 --size tiny          published models of one kind
  vmp-edge build --target host --model videomamba-tiny-k400-8x224
"""
_STAGES = {
    "pretrained": "masked pre-training, no classes: build it with --features",
    "finetuned": "fine-tuned from masked pre-training",
    "video-text": "video and text, no classes: build it with --features",
}


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "models",
        help="list the models that can be built by their names",
        description="List our own trained models, the published checkpoints, and the presets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models = published()
    parser.add_argument("--family", choices=list(FAMILIES), help="only models of this family")
    parser.add_argument(
        "--data", choices=list(dict.fromkeys(model.data for model in models)), help="only published models of this data"
    )
    parser.add_argument("--size", choices=list(SIZES), help="only models of this size")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    from ..models.own import names as own_names

    selected = [
        model
        for model in published()
        if args.family in (None, model.family) and args.data in (None, model.data) and args.size in (None, model.size)
    ]
    unfiltered = args.family is None and args.data is None and args.size is None
    own = own_names() if unfiltered else []
    presets = [] if args.data else [name for name in PRESETS if name not in own_names() and _is_of(name, args)]
    if own:
        say("our own, with weights in the package:")
        for name in own:
            options = PRESETS[name]
            say(f"  {name:44} {options.num_frames}x{options.image_size:<8} {options.num_classes} classes")
    if selected:
        say("published, fetched from the Hugging Face hub when they are built; in brackets the frames x crops x clips")
        say("that the published top-1 averages over:")
        for model in selected:
            say(f"  {model.name:44} {_describe(model)}")
    if presets:
        say("presets, with random weights: for timing, and for training of your own:")
        for name in presets:
            options = PRESETS[name]
            say(f"  {name:44} {options.embed_dim} channels, {options.depth} layers")
    if not (own or selected or presets):
        say("there is no such model; vmp-edge models lists all of them")
    if args.json:
        print_json({"own": own, "published": [dataclasses.asdict(model) for model in selected], "presets": presets})
    return 0


def _is_of(name: str, args: argparse.Namespace) -> bool:
    family, _, size = name.removesuffix("-causal").partition("-")
    return args.family in (None, family) and args.size in (None, size)


def _describe(model: Published) -> str:
    shape = f"{model.frames}x{model.image_size}" if model.frames else f"{model.image_size} (images)"
    if model.top1 is not None:
        quality = f"top-1 {model.top1}%" + (f" ({model.views})" if model.views else "")
    else:
        quality = "" if model.classes == 0 else "top-1 not known"
    if model.span is not None:
        shape += f" over {model.span:g} s"
    remarks = [text for text in (quality, _STAGES.get(model.stage, ""), model.remark) if text]
    return f"{shape:17} {'; '.join(remarks)}"
