"""Cheaper variants of a model in one bundle: fewer frames, smaller pictures, fewer blocks.

A variant shares the model's weights. Its position embeddings are interpolated like a checkpoint's. A variant of depth N
exits after N blocks: the final norm and the head are applied to the output of the N-th block.
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
from vmp_edge.calibration.decoding import Progress, Sampling
from vmp_edge.calibration.measure import Comparison, Subject, evaluate
from vmp_edge.errors import UsageError
from vmp_edge.names import cleaned
from vmp_edge.recognizer import load

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba
    from vmp_edge.models.options import ModelOptions

OPTIONS = {"frames": "num_frames", "size": "image_size", "depth": "depth"}
CLIPS = 200  # procedural clips on which variants are measured


@dataclass(frozen=True)
class Variant:
    """The options in which a variant differs from the model.

    Attributes:
        frames: Frames of a clip; None for the model's.
        size: Pixels of a frame's side; None for the model's.
        depth: Number of blocks; None for the model's.
    """

    frames: int | None = None
    size: int | None = None
    depth: int | None = None

    @property
    def name(self) -> str:
        """The name of the variant's folder: ``frames4-depth2``."""
        return "-".join(f"{key}{value}" for key, value in dataclasses.asdict(self).items() if value is not None)

    def options(self, model: ModelOptions) -> ModelOptions:
        """Return the variant's options, given the model's.

        Raises:
            UsageError: A value is not possible for the model.
        """
        changes = {OPTIONS[key]: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return type(model).from_dict({**dataclasses.asdict(model), **changes})

    def to_manifest(self, model: ModelOptions) -> dict[str, Any]:
        """Return all of the variant's sizes: frames, image size, depth."""
        options = self.options(model)
        return {"frames": options.num_frames, "image_size": options.image_size, "depth": options.depth}


def parse(words: Sequence[str]) -> list[Variant]:
    """Return every combination of the sizes that the user lists: ``frames=4,8 depth=2,4`` are four variants.

    Raises:
        UsageError: A word is not an option with whole numbers.
    """
    sizes: dict[str, list[int]] = {}
    for word in words:
        match = re.fullmatch(r"(\w+)=(\d+(?:,\d+)*)", word)
        if match is None or match[1] not in OPTIONS or match[1] in sizes:
            raise UsageError(f"--variants {word}: give each of {', '.join(OPTIONS)} once, as in frames=4,8 depth=2,4")
        sizes[match[1]] = [int(value) for value in match[2].split(",")]
    combinations = itertools.product(*sizes.values()) if sizes else ()
    return [Variant(**dict(zip(sizes, values, strict=True))) for values in combinations]


def cheaper(variants: Sequence[Variant], model: ModelOptions) -> list[Variant]:
    """Return the variants without the model itself, from the dearest to the cheapest by tokens times blocks.

    Raises:
        UsageError: A variant takes more than the model, or is not possible.
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
    others = [variant for variant in variants if variant.options(model) != model]
    return sorted(others, key=lambda variant: -_cost(variant.options(model)))


def _cost(options: ModelOptions) -> int:
    return options.length * options.depth


def cut(model: VideoMamba, variant: Variant) -> VideoMamba:
    """Return the variant of a model, with the model's weights, in evaluation mode."""
    from vmp_edge.models.checkpoint import interpolate_positions
    from vmp_edge.models.videomamba import VideoMamba

    smaller = VideoMamba(variant.options(model.options))
    state = interpolate_positions(model.state_dict(), smaller.options)
    smaller.load_state_dict({key: value for key, value in state.items() if key in smaller.state_dict()})
    return smaller.eval()


def measure(
    model: Path, variants: Mapping[str, Path], clips: ClipSet, threads: int | None, progress: Progress | None
) -> dict[str, dict[str, Any]]:
    """Measure how well each variant recognises beside the model, on clips that are sampled as in training.

    Args:
        model: The model's bundle.
        variants: The variants' bundles by name.
        clips: Labelled clips.
        threads: Threads for the engine; None takes the bundle's.
        progress: Makes progress bars, as `tqdm.tqdm` does; None shows nothing.

    Returns:
        What the manifest says about each variant, by name.
    """
    with ExitStack() as stack:
        subjects = [
            dataclasses.replace(Subject.of(stack.enter_context(load(path, threads))), name=name)
            for name, path in {"the model": model, **variants}.items()
        ]
        baseline, *evaluations = evaluate(subjects, clips, Sampling("trained"), progress=progress)
    return {
        evaluation.name: {
            "data": cleaned(clips.name),
            "clips": len(evaluation.entries),
            "top1": round(evaluation.top1, 4),
            "model_top1": round(baseline.top1, 4),
            "agreement": round(Comparison(evaluation, baseline).agreement, 4),
        }
        for evaluation in evaluations
    }
