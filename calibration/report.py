"""What was measured, as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vmp_edge import __version__
from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.files import whole

from .clipset import Entry
from .decoding import Sampling, UnusableError, read_clips
from .measure import Comparison, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
_PICTURES = 4  # of a clip
_PICTURE_HEIGHT = 96


@dataclass(frozen=True)
class Report:
    """What a report tells; what is not given is left out.

    Attributes:
        found: the evaluation that it is about.
        baseline: another model's evaluation of the same videos, the float one's say.
        data: where the videos are from.
        layers: signal-to-noise ratio of each layer in decibels, by name, in the model's order.
        details: more to be said, by name: the recipe, the tools.
        tables: more tables by title, the first row being their head: an ablation, say.
        worst: how many clips with the lowest scores of their own label to show, and of those that differ.
    """

    found: Evaluation
    baseline: Evaluation | None = None
    data: str = ""
    layers: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    worst: int = 9


def check(path: Path) -> None:
    """Find out before the work whether a report can be written.

    Raises:
        UsageError: the folder does not exist, or the path is a folder.
        MissingDependencyError: the extra ``report`` is not installed.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"the report cannot be written to {path}: give a file in a folder that exists")
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"a report needs {error.name}, which is not installed; run: pip install 'vmp-edge[report]'"
        ) from error


def write(report: Report, path: Path) -> None:
    """Write it; a file that is there is replaced when the new one is whole.

    Raises:
        UsageError, MissingDependencyError: as `check`.
    """
    check(path)
    try:
        with whole(path) as place:
            place.write_text(render(report), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the report cannot be written to {path}: {error.strerror}") from error


def render(report: Report) -> str:
    """The report's HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found, baseline = report.found, report.baseline
    comparison = Comparison(found, baseline) if baseline is not None else None
    return environment.get_template("report.html.j2").render(
        report=report,
        found=found,
        baseline=baseline,
        comparison=comparison,
        names=_names(found, baseline),
        plots=_plots(report),
        folds=_folds(found, baseline),
        worst=[_clip(report, i) for i in found.worst(report.worst)],
        differing=[_clip(report, i) for i in comparison.differing[: report.worst]] if comparison else [],
        version=__version__,
    )


def _names(found: Evaluation, baseline: Evaluation | None) -> list[str]:
    """Short names of the two models that tell them apart."""
    if baseline is None:
        return [Path(found.name).name]
    for key in ("precision", "engine", "target"):
        if found.facts.get(key) != baseline.facts.get(key):
            return [str(model.facts.get(key, model.name)) for model in (found, baseline)]
    ours, theirs = Path(found.name).name, Path(baseline.name).name
    return [ours, theirs] if ours != theirs else [found.name, baseline.name]


def _plots(report: Report) -> dict[str, str]:
    """The plots by name, as addresses of pictures."""
    from . import plots

    models = [report.found] + ([report.baseline] if report.baseline is not None else [])
    names = _names(report.found, report.baseline)
    recalls = [{label: row["recall"] for label, row in model.by_label().items()} for model in models]
    shown = list(recalls[0])
    figures = {
        "labels": plots.label_figure(
            {name: [recall[label] for label in shown] for name, recall in zip(names, recalls, strict=True)}, shown
        ),
        "confusion": plots.confusion_figure(report.found.confusion, report.found.labels),
        "latency": plots.bars_figure(
            {name: model.milliseconds["p50"] for name, model in zip(names, models, strict=True)}, "ms"
        ),
    }
    if all("bytes" in model.facts for model in models):
        sizes = {name: model.facts["bytes"] / 1e6 for name, model in zip(names, models, strict=True)}
        figures["size"] = plots.bars_figure(sizes, "MB")
    if report.layers:
        figures["layers"] = plots.layers_figure(report.layers)
    return {name: _as_address(figure) for name, figure in figures.items()}


def _as_address(figure: Figure) -> str:
    import matplotlib

    target = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "vmp-edge"}):  # the same numbers give the same file
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(target.getvalue()).decode()}"


def _folds(found: Evaluation, baseline: Evaluation | None) -> list[tuple[str, float, float | None]]:
    """Fold, its top-1, and the baseline's; last the means."""
    ours, theirs = found.by_fold(), baseline.by_fold() if baseline is not None else {}
    rows: list[tuple[str, float, float | None]] = [(str(fold), ours[fold], theirs.get(fold)) for fold in ours]
    if rows:
        mean = float(np.mean(list(theirs.values()))) if theirs else None
        rows.append(("mean", float(np.mean(list(ours.values()))), mean))
    return rows


def _clip(report: Report, index: int) -> dict[str, Any]:
    """A clip as the template shows it."""
    found, baseline = report.found, report.baseline
    entry = found.entries[index]
    models = [found] + ([baseline] if baseline is not None else [])
    return {
        "path": str(entry.path),
        "name": entry.path.name,
        "label": entry.label,
        "own": float(found.scores[index, found.truth[index]]),
        "guesses": [
            {
                "label": model.labels[model.predictions[index]],
                "score": float(model.scores[index].max()),
                "right": bool(model.correct[index]),
            }
            for model in models
        ],
        "picture": thumbnail(entry),
    }


def thumbnail(entry: Entry) -> str | None:
    """A few frames of a video in a row, as the address of a JPEG; None if they cannot be had any more."""
    try:
        clip = read_clips(entry.path, lambda count, fps: Sampling().indices(count, fps, min(count, _PICTURES), None))[0]
    except UnusableError:
        return None
    width = max(1, round(clip.shape[2] * _PICTURE_HEIGHT / clip.shape[1]))
    frames = [cv2.resize(frame, (width, _PICTURE_HEIGHT), interpolation=cv2.INTER_AREA) for frame in clip]
    row = cv2.cvtColor(np.hstack(frames).astype(np.uint8), cv2.COLOR_RGB2BGR)
    coded = cv2.imencode(".jpg", row, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode()}"
