"""A linear head on the features of a model that stays as it is: the quick way to classes of one's own.

The features of all clips are computed once. Fitting the head takes seconds, by the same code that a gallery's classes
are told apart with (`vmp_edge.linear`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vmp_edge import linear
from vmp_edge.errors import UsageError
from vmp_edge.linear import HeldOut
from vmp_edge.models import VideoMamba

from ..decoding import Progress, Video

FOLDS = 5  # parts that are held out in turn, to choose the strength of regularisation
_AT_ONCE = 8  # videos that go through the model at once
_ALIKE = 1e-5  # spread of features, relative to their size, under which they say nothing


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class Head:
    """A linear head.

    Attributes:
        labels: The names of the classes.
        weight: float32 (classes, C).
        bias: float32 (classes,).
        decay: The strength of regularisation that was chosen.
        held_out: What is recognised of each clip by heads that have not seen its group; None if there is one group.
    """

    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    decay: float
    held_out: HeldOut | None


def features(
    model: VideoMamba, clips: Iterable[Video], total: int | None = None, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Compute what a model's head reads.

    Args:
        model: The model; what it has for a head does not matter.
        clips: Videos of each clip, float32 (V, 3, T, S, S): V views of it, as many of each clip.
        total: Number of clips, for the progress bar; None if it is not known.
        progress: Makes a progress bar, like `tqdm.tqdm`.

    Returns:
        float32 (N, V, C).
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = []
    shown = progress(clips, total=total, desc="features", unit="clip") if progress is not None else clips
    with torch.inference_mode():
        for videos in shown:
            parts = [torch.from_numpy(np.ascontiguousarray(part)) for part in _parts(videos)]
            rows.append(torch.cat([model.forward_features(part.to(device)).float().cpu() for part in parts]).numpy())
    model.train(was_training)
    return np.stack(rows)


def fit(
    features: NDArray[np.float32],
    labels: Sequence[str],
    groups: Sequence[Any] | None = None,
    progress: Progress | None = None,
) -> Head:
    """Fit a head to features. All classes count the same, however many clips they have.

    How strongly the head is regularised is chosen by what suits clips of held-out groups best, by their probabilities,
    so that the scores can be taken for what they say.

    Args:
        features: float32 (N, C), or (N, V, C) with V views of each clip.
        labels: The label of each clip.
        groups: The group of each clip, such as its scene or person; None makes each clip a group.
        progress: Makes a progress bar, like `tqdm.tqdm`.

    Returns:
        The head; `Head.held_out` has an entry for each clip, whose scores are the mean of its views.

    Raises:
        UsageError: There is one class only, or the features are all alike or not finite.
    """
    names, classes = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        raise UsageError(f"a head needs clips of two classes or more, and all are of {', '.join(names) or 'none'}")
    views = features[:, None] if features.ndim == 2 else features
    count, each, size = views.shape
    rows = views.reshape(-1, size)
    if not np.isfinite(rows).all():
        raise UsageError("the model's features are not finite: its weights are damaged, or its training has diverged")
    if rows.std(0).max() <= _ALIKE * max(float(np.abs(rows).max()), _ALIKE):
        raise UsageError(
            "the model gives the same features for all clips, so that no head can tell them apart: start from another "
            "model"
        )
    group = np.arange(count) if groups is None else np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    places = np.repeat(np.arange(count), each)
    solution = linear.fit(rows, classes[places], group[places], most_folds=FOLDS, progress=progress)
    held_out = None
    if solution.held_out is not None:
        held_out = HeldOut(solution.held_out.scores.reshape(count, each, -1).mean(1), classes)
    weight, bias = solution.weight.astype(np.float32), solution.bias.astype(np.float32)
    return Head(tuple(map(str, names)), weight, bias, solution.decay, held_out)


def put_into(model: VideoMamba, head: Head) -> VideoMamba:
    """Return a copy of a model with a fitted head, in evaluation mode: an ordinary model, to save and to build.

    Raises:
        UsageError: The head is for other features.
    """
    options = model.options
    if options.projection or head.weight.shape[1] != options.embed_dim:
        raise UsageError(
            f"the head reads {head.weight.shape[1]} features, and the model's own head reads "
            f"{'none' if options.projection else options.embed_dim}"
        )
    result = VideoMamba(dataclasses.replace(options, num_classes=len(head.labels)))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    own = {"head.weight": torch.from_numpy(head.weight), "head.bias": torch.from_numpy(head.bias)}
    result.load_state_dict({**weights, **own})
    return result.eval()


def _parts(videos: Video) -> list[Video]:
    return [videos[start : start + _AT_ONCE] for start in range(0, len(videos), _AT_ONCE)]
