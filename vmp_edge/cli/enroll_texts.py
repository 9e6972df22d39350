"""The part of `vmp-edge enroll` that adds classes by texts, on the workstation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..bundle.reading import Bundle
from ..errors import UsageError
from ..formatting import quantity
from ..gallery import Gallery, check_name
from .output import message


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of texts."""
    group = parser.add_argument_group(
        "texts",
        "Classes by their names, for a bundle of a video-text checkpoint. This needs the extra `text` and the "
        "checkpoint, and is done on the workstation: the device needs the gallery alone.",
    )
    group.add_argument("--text", nargs="+", default=[], metavar="TEXT", help="what a class shows, which is its name")
    group.add_argument("--text-file", type=Path, metavar="FILE", help="a text file with one text a line")
    group.add_argument("--checkpoint", metavar="FILE", help="the bundle's checkpoint, or hf://OWNER/NAME/FILE")
    group.add_argument(
        "--tokenizer",
        metavar="PLACE",
        help="the tokenizer: vocab.txt or tokenizer.json, its folder, or hf://OWNER/NAME/vocab.txt (default: that of "
        "bert-base-uncased)",
    )
    group.add_argument(
        "--prompt",
        action="append",
        metavar="PROMPT",
        help='a sentence with {} for the text, "a video of {}"; may be repeated, and the features are averaged; '
        "published stands for the 16 prompts of the published code (default: the text alone)",
    )
    group.add_argument(
        "--temperature", type=float, metavar="T", help="divides similarities before the softmax (default: as trained)"
    )
    group.add_argument(
        "--text-heads", type=int, metavar="N", help="attention heads of the text encoder (default: of 64 channels each)"
    )


def are_given(args: argparse.Namespace) -> bool:
    """Return whether texts are given.

    Raises:
        UsageError: An option of texts is given without a text.
    """
    if args.text or args.text_file is not None:
        if args.checkpoint is None:
            raise UsageError("--text needs the text encoder: give the bundle's checkpoint with --checkpoint")
        return True
    options = {name: getattr(args, name) for name in ("checkpoint", "tokenizer", "prompt", "temperature", "text_heads")}
    if given := [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]:
        raise UsageError(f"{', '.join(given)}: for texts, which --text and --text-file give")
    return False


def enroll(gallery: Gallery, bundle: Bundle, args: argparse.Namespace) -> None:
    """Add a class for each text to a gallery."""
    from vmp_edge.compile.labels import read_labels
    from vmp_edge.compile.source import choose

    from ..videotext.cleaning import PLAIN, PUBLISHED_PROMPTS, filled_in
    from ..videotext.features import TextModel, check_bundle, require_libraries

    require_libraries()  # before a checkpoint is fetched
    texts = list(dict.fromkeys([*args.text, *(read_labels(args.text_file) if args.text_file is not None else ())]))
    for text in texts:
        check_name(text, bundle)
    prompts = [one for prompt in args.prompt or PLAIN for one in _named(prompt, PUBLISHED_PROMPTS)]
    for text in texts:
        filled_in(prompts, text)  # before the model is loaded
    choice = choose(None, args.checkpoint)
    choice.check_file()
    path = choice.file()
    model = TextModel.load(path, args.tokenizer, args.text_heads)
    check_bundle(bundle, path, model.encoder.size)
    temperature = model.temperature if args.temperature is None else args.temperature
    for text, feature in zip(texts, model.features(texts, prompts), strict=True):
        gallery.add_text(text, feature, temperature)
    averaged = f", {len(prompts)} prompts each, averaged" if len(prompts) > 1 else ""
    message(f"{quantity(len(texts), 'text')}{averaged}, by the first {model.encoder.layers} layers of the text encoder")


def _named(prompt: str, published: Any) -> tuple[str, ...]:
    return tuple(published) if prompt == "published" else (prompt,)
