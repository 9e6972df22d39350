"""Cheaper variants of a model in one bundle: fewer frames, smaller pictures, fewer blocks.

A variant shares the model's weights: position embeddings are interpolated as for a checkpoint, and a variant of depth N
exits after N blocks: the final norm and the head are applied to what the N-th block gives.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmp_edge.calibration.clipset import ClipSet
from vmp_edge.calibration.decoding import Progress
from vmp_edge.calibration.measure import Comparison, Subject, evaluate
from vmp_edge.errors import UsageError
from vmp_edge.recognizer import load

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba
    from vmp_edge.models.options import ModelOptions

OPTIONS = {"frames": "num_frames", "size": "image_size", "depth": "depth"}
CLIPS = 200  # procedural ones, on which variants are measured


@dataclass(frozen=True)
class Variant:
    """What differs from the model.

    Attributes:
        frames: of a clip; None for the model's.
        size: pixels of a side; None for the model's.
        depth: blocks; None for the model's.
    """

    frames: int | None = None
    size: int | None = None
    depth: int | None = None

    @property
    def name(self) -> str:
        """The name of its folder: ``frames4-depth2``."""
        return "-".join(f"{key}{value}" for key, value in dataclasses.asdict(self).items() if value is not None)

    def options(self, model: ModelOptions) -> ModelOptions:
        """Its options, given the model's.

        Raises:
            UsageError: a value is not possible for the model.
        """
        given = {OPTIONS[key]: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return type(model).from_dict({**dataclasses.asdict(model), **given})

    def to_manifest(self, model: ModelOptions) -> dict[str, Any]:
        """What it is, in whole: frames, image size, depth."""
        options = self.options(model)
        return {"frames": options.num_frames, "image_size": options.image_size, "depth": options.depth}


def parse(words: Sequence[str]) -> list[Variant]:
    """Every combination of what was asked: ``frames=4,8 depth=2,4`` are four variants.

    Raises:
        UsageError: a word is not an option with whole numbers.
    """
    asked: dict[str, list[int]] = {}
    for word in words:
        match = re.fullmatch(r"(\w+)=(\d+(?:,\d+)*)", word)
        if match is None or match[1] not in OPTIONS or match[1] in asked:
            raise UsageError(f"--variants {word}: give each of {', '.join(OPTIONS)} once, as in frames=4,8 depth=2,4")
        asked[match[1]] = [int(value) for value in match[2].split(",")]
    combinations = itertools.product(*asked.values()) if asked else ()
    return [Variant(**dict(zip(asked, values, strict=True))) for values in combinations]


def cheaper(variants: Sequence[Variant], model: ModelOptions) -> list[Variant]:
    """The variants but for the model itself, from the dearest to the cheapest by tokens times blocks.

    Raises:
        UsageError: one takes more than the model, or is not possible.
    """
    for variant in variants:
        options = variant.options(model)
        for name in OPTIONS.values():
            most = getattr(model, name)
            if getattr(options, name) > most:
                raise UsageError(
                    f"the variant {variant.name} has more than the model's {name} {most}: "
                    "variants are cheaper; build the model with the most of it (--frames, --image-size)"
                )
    wanted = [variant for variant in variants if variant.options(model) != model]
    return sorted(wanted, key=lambda variant: -_cost(variant.options(model)))


def _cost(options: ModelOptions) -> int:
    return options.length * options.depth


def cut(model: VideoMamba, variant: Variant) -> VideoMamba:
    """The variant of a model, with its weights, in evaluation mode."""
    from vmp_edge.models.checkpoint import interpolate_positions
    from vmp_edge.models.videomamba import VideoMamba

    made = VideoMamba(variant.options(model.options))
    state = interpolate_positions(model.state_dict(), made.options)
    made.load_state_dict({key: value for key, value in state.items() if key in made.state_dict()})
    return made.eval()


def measure(
    model: Path, variants: Mapping[str, Path], clips: ClipSet, threads: int | None, bar: Progress | None
) -> dict[str, dict[str, Any]]:
    """How well each variant recognises, beside the model: by its name, what the manifest says.

    Args:
        model: the bundle.
        variants: the variants' bundles.
        clips: labelled ones.
        threads: for the engine.
        bar: makes progress bars, as `tqdm.tqdm` does; None shows nothing.
    """
    with ExitStack() as stack:
        subjects = [
            dataclasses.replace(Subject.of(stack.enter_context(load(path, threads))), name=name)
            for name, path in {"the model": model, **variants}.items()
        ]
        baseline, *found = evaluate(subjects, clips, progress=bar)
    return {
        one.name: {
            "data": clips.name,
            "clips": len(one.entries),
            "top1": round(one.top1, 4),
            "model_top1": round(baseline.top1, 4),
            "agreement": round(Comparison(one, baseline).agreement, 4),
        }
        for one in found
    }
