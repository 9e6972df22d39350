"""Write measurements as one HTML file that needs no other files."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vmp_edge import __version__, formatting
from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.files import whole
from vmp_edge.installation import install_command
from vmp_edge.text import printable

from . import charts, circumstances
from .clipset import Entry
from .decoding import Sampling, UnusableError, read_clips
from .measure import Comparison, Evaluation

TEMPLATES = Path(__file__).parent / "templates"
_PICTURES = 4  # frames that show a clip
_PICTURE_HEIGHT = 96  # pixels
_FEW = 30  # videos: with fewer, the report says that they tell little


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
        notes: What a reader should know before the numbers, in whole sentences, besides what the report finds itself.
        pictures: Files of pictures (PNG) by title, which become a part of the page.
        worst: How many clips to show of those whose own label scored lowest, and of those on which the models differ.
        command: The program that measured, and its arguments. Secrets in them are masked.
        date: The time of the measurement.
    """

    evaluation: Evaluation
    baseline: Evaluation | None = None
    data: str = ""
    layers: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)
    worst: int = 9
    command: Sequence[str] = field(default_factory=lambda: tuple(sys.argv))
    date: datetime = field(default_factory=circumstances.now)


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
    """Return the report's HTML, which can be written as UTF-8 whatever the names of files and labels are."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: object) -> str:
        return value if isinstance(value, Markup) else printable(str(value))

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    evaluation, baseline = report.evaluation, report.baseline
    models = [evaluation] + ([baseline] if baseline is not None else [])
    comparison = Comparison(evaluation, baseline) if baseline is not None else None
    names = _names(evaluation, baseline)
    return environment.get_template("report.html.j2").render(
        report=report,
        evaluation=evaluation,
        baseline=baseline,
        comparison=comparison,
        speed=comparison.speed if comparison else None,
        names=names,
        notes=[*report.notes, *_notes(evaluation, names)],
        pictures={title: _data_url(path.read_bytes(), "png") for title, path in report.pictures.items()},
        labels=charts.by_label(models if evaluation.labelled else [evaluation]),
        confusion=charts.confusion(evaluation),
        performance=charts.performance(names, models),
        layers=charts.layers(report.layers),
        folds=_folds(evaluation, baseline),
        worst=[_clip(report, i) for i in evaluation.worst(report.worst)],
        differing=[_clip(report, i) for i in comparison.differing[: report.worst]] if comparison else [],
        circumstances=circumstances.describe(models, report.command, report.date),
        json=Markup(_json(report, comparison)),  # it has no character that HTML knows
        version=__version__,
        format=formatting,
        charts=charts,
    )


def _json(report: Report, comparison: Comparison | None) -> str:
    """Return all that was measured as JSON that can stand in a page."""
    values = report.evaluation.to_dict()
    values["compare"] = comparison.to_dict() if comparison else None
    layers = {name: ratio if np.isfinite(ratio) else None for name, ratio in report.layers.items()}
    values = {"data": report.data, "date": report.date.isoformat(), **values, "layers_db": layers}
    return json.dumps(values, allow_nan=False).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _notes(evaluation: Evaluation, names: Sequence[str]) -> list[str]:
    """Return what a reader should know before the numbers, in whole sentences."""
    count, shown = len(evaluation.entries), {entry.label for entry in evaluation.entries}
    if not count:
        return ["No video could be used, so nothing was measured. The reasons are below."]
    notes = []
    if count < _FEW:
        notes.append(f"{formatting.quantity(count, 'video')} can tell little: see how wide the interval is.")
    if not evaluation.labelled and len(names) > 1:
        notes.append(
            f"The videos have no labels. What {names[1]} recognises stands for them, so the report tells how far the "
            "two models agree, and nothing about how often either is right."
        )
    elif evaluation.labelled and len(shown) == 1:
        notes.append("All videos have the same label. Always giving it would be right every time.")
    if evaluation.groups:
        groups = formatting.quantity(evaluation.groups, "group")
        notes.append(
            f"The videos belong to {groups}. Those of one group are alike, so the true interval is wider than the one "
            "given, which takes every video for itself."
        )
    return notes


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
    return _data_url(coded.tobytes(), "jpeg")


def _data_url(content: bytes, kind: str) -> str:
    """Return a picture's file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
