"""Write measurements as one HTML file that needs no other files."""

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
from vmp_edge.installation import install_command

from .clipset import Entry
from .decoding import Sampling, UnusableError, read_clips
from .measure import Comparison, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
_PICTURES = 4  # frames that show a clip
_PICTURE_HEIGHT = 96  # pixels


@dataclass(frozen=True)
class Report:
    """The content of a report. Parts that are empty are left out.

    Attributes:
        evaluation: The evaluation that the report is about.
        baseline: Another model's evaluation of the same videos, of the float model for example.
        data: Where the videos are from.
        layers: Signal-to-noise ratio of each layer in decibels, by name, in the model's order.
        details: Further facts by name, such as the recipe and the tools.
        tables: Further tables by title, an ablation for example; the first row is the table's head.
        worst: How many clips to show of those whose own label scored lowest, and of those on which the models differ.
    """

    evaluation: Evaluation
    baseline: Evaluation | None = None
    data: str = ""
    layers: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    worst: int = 9


def check(path: Path) -> None:
    """Check, before the models are measured, that a report can be written.

    Raises:
        UsageError: The folder does not exist, or the path is a folder.
        MissingDependencyError: The extra ``report`` is not installed.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"the report cannot be written to {path}: give a file in a folder that exists")
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"a report needs {error.name}, which is not installed; run: {install_command('report')}"
        ) from error


def write(report: Report, path: Path) -> None:
    """Write a report; an existing file is replaced only when the new one is complete.

    Raises:
        UsageError, MissingDependencyError: See `check`.
    """
    check(path)
    try:
        with whole(path) as place:
            place.write_text(render(report), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"the report cannot be written to {path}: {error.strerror}") from error


def render(report: Report) -> str:
    """Return the report's HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    evaluation, baseline = report.evaluation, report.baseline
    comparison = Comparison(evaluation, baseline) if baseline is not None else None
    return environment.get_template("report.html.j2").render(
        report=report,
        evaluation=evaluation,
        baseline=baseline,
        comparison=comparison,
        names=_names(evaluation, baseline),
        plots=_plots(report),
        folds=_folds(evaluation, baseline),
        worst=[_clip(report, i) for i in evaluation.worst(report.worst)],
        differing=[_clip(report, i) for i in comparison.differing[: report.worst]] if comparison else [],
        version=__version__,
    )


def _names(evaluation: Evaluation, baseline: Evaluation | None) -> list[str]:
    """Return a short name for each model; two models get different names."""
    if baseline is None:
        return [Path(evaluation.name).name]
    models = (evaluation, baseline)
    for key in ("precision", "engine", "target"):
        if evaluation.facts.get(key) != baseline.facts.get(key):
            return [str(model.facts.get(key, model.name)) for model in models]
    names = [Path(model.name).name for model in models]
    return names if names[0] != names[1] else [model.name for model in models]


def _plots(report: Report) -> dict[str, str]:
    """Return the plots by name, as data URLs."""
    from . import plots

    models = [report.evaluation] + ([report.baseline] if report.baseline is not None else [])
    names = _names(report.evaluation, report.baseline)
    recalls = [{label: row["recall"] for label, row in model.by_label().items()} for model in models]
    labels = list(recalls[0])
    figures = {
        "labels": plots.label_figure(
            {name: [recall[label] for label in labels] for name, recall in zip(names, recalls, strict=True)}, labels
        ),
        "confusion": plots.confusion_figure(report.evaluation.confusion, report.evaluation.labels),
        "latency": plots.bars_figure(
            {name: model.milliseconds["p50"] for name, model in zip(names, models, strict=True)}, "ms"
        ),
    }
    if all("bytes" in model.facts for model in models):
        sizes = {name: model.facts["bytes"] / 1e6 for name, model in zip(names, models, strict=True)}
        figures["size"] = plots.bars_figure(sizes, "MB")
    if report.layers:
        figures["layers"] = plots.layers_figure(report.layers)
    return {name: _as_url(figure) for name, figure in figures.items()}


def _as_url(figure: Figure) -> str:
    """Return a figure as the data URL of an SVG."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "vmp-edge"}):  # the same numbers give the same file
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def _folds(evaluation: Evaluation, baseline: Evaluation | None) -> list[tuple[str, float, float | None]]:
    """Return a row for each fold, with top-1 of both models, and a last row with the means."""
    folds, baseline_folds = evaluation.by_fold(), baseline.by_fold() if baseline is not None else {}
    rows: list[tuple[str, float, float | None]] = [(str(i), top1, baseline_folds.get(i)) for i, top1 in folds.items()]
    if rows:
        mean = float(np.mean(list(baseline_folds.values()))) if baseline_folds else None
        rows.append(("mean", float(np.mean(list(folds.values()))), mean))
    return rows


def _clip(report: Report, index: int) -> dict[str, Any]:
    """Return what the template shows of a clip."""
    evaluation, baseline = report.evaluation, report.baseline
    entry = evaluation.entries[index]
    models = [evaluation] + ([baseline] if baseline is not None else [])
    return {
        "path": str(entry.path),
        "name": entry.path.name,
        "label": entry.label,
        "own": float(evaluation.scores[index, evaluation.truth[index]]),
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
    """Return a few frames of a video in a row, as the data URL of a JPEG; None if the video cannot be read any more."""
    try:
        clip = read_clips(entry.path, lambda count, fps: Sampling().indices(count, fps, min(count, _PICTURES), None))[0]
    except UnusableError:
        return None
    width = max(1, round(clip.shape[2] * _PICTURE_HEIGHT / clip.shape[1]))
    frames = [cv2.resize(frame, (width, _PICTURE_HEIGHT), interpolation=cv2.INTER_AREA) for frame in clip]
    picture = cv2.cvtColor(np.hstack(frames).astype(np.uint8), cv2.COLOR_RGB2BGR)
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode()}"
