"""The results of a training: in words, as JSON, as pictures and as a report, and what to do next."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmp_edge.files import whole
from vmp_edge.formatting import interval, percent, plain, quantity
from vmp_edge.progress import duration

from .. import report
from ..evaluation import Evaluation
from . import pictures
from .fit import Trained
from .geometry import Cut
from .loop import TOP1
from .recipe import ClipsRecipe
from .settings import CLIPS, Settings
from .survey import Survey
from .survey import table as class_table

CURVES, CONFUSION, REPORT, RESULTS = "curves.png", "confusion.png", "report.html", "results.json"
FINAL, BUNDLE, HELD_OUT = "model", "bundle", "held-out"
_OTHER_TARGET = "arm64"  # an example: a Raspberry Pi 5


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        evaluation: The results on the clips that were held out, by models that have not seen them.
        models: The models that were trained for it, by name.
        survey: What was found in the clips.
        warnings: What the user should know about them.
        cut: The size and length to which all clips were cut; None if they were not.
        control_before: What size and length alone recognised before that; None if the clips were not cut.
    """

    evaluation: Evaluation
    models: Mapping[str, Trained]
    survey: Survey
    warnings: Sequence[str]
    cut: Cut | None = None
    control_before: float | None = None


def accuracy_lines(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the lines that say how good the models are: of clips, of the stream, and by chance."""
    lines = [("top-1 of the clips", _top1(evaluation))]
    stream = evaluation.stream
    if stream is not None:
        short = f", {len(stream.skipped)} shorter than a window" if stream.skipped else ""
        lines.append(("top-1 of the stream", f"{_top1(stream)}{short}" if stream.entries else f"no window{short}"))
    by_chance = f"{percent(evaluation.chance)} by chance"
    if evaluation.majority is not None:
        by_chance += f", {percent(evaluation.majority[1])} by always saying {evaluation.majority[0]}"
    lines.append(("for comparison", by_chance))
    for label, row in evaluation.by_label().items():
        wrong = evaluation.confusion[evaluation.labels.index(label)].copy()
        wrong[evaluation.labels.index(label)] = 0
        mistake = f", else mostly {evaluation.labels[int(wrong.argmax())]}" if wrong.any() else ""
        lines.append((label, f"{percent(row['recall'])} of {row['clips']}{mistake}"))
    folds = evaluation.by_fold()
    if len(folds) > 1:
        lines += [(f"fold {fold}", percent(share)) for fold, share in folds.items()]
    return lines


def _top1(evaluation: Evaluation) -> str:
    count = quantity(len(evaluation.entries), "held-out clip")
    return f"{percent(evaluation.top1)} of {count}, 95% interval {interval(evaluation.interval)}"


def selection_note(models: Mapping[str, Trained]) -> str | None:
    """Return a sentence on how the stopping was chosen, if it was chosen on the clips that are measured."""
    history = models[HELD_OUT].history if HELD_OUT in models else []
    if not history or TOP1 not in history[-1]:
        return None
    kept, last = models[HELD_OUT].epoch, history[-1]
    if kept == len(history):
        return None  # the last one would have been taken anyway
    return (
        f"Epoch {kept} was kept because it did best on the held-out clips, so their numbers are a little too good: of "
        f"one window of each it had {percent(history[kept - 1][TOP1])}, and the last, epoch {last['epoch']:.0f}, "
        f"{percent(last[TOP1])}. --folds 5 measures without that, in about three times the time."
    )


def brief(evaluation: Evaluation) -> dict[str, Any]:
    """Return what a model's file and its bundle say about its accuracy."""
    stream = evaluation.stream
    values: dict[str, Any] = {
        "held_out_top1": round(evaluation.top1, 4),
        "held_out_top1_interval": [round(share, 4) for share in evaluation.interval],
        "held_out_clips": len(evaluation.entries),
    }
    if stream is not None and stream.entries:
        values["held_out_stream_top1"] = round(stream.top1, 4)
        values["held_out_stream_top1_interval"] = [round(share, 4) for share in stream.interval]
    return {**values, "chance": round(evaluation.chance, 4)}


def draw(measured: Measured, folder: Path) -> None:
    """Draw the curves and the confusion matrix."""
    histories = {name: trained.history for name, trained in measured.models.items()}
    if any(histories.values()):
        pictures.curves(histories, measured.evaluation.chance, folder / CURVES)
    pictures.confusion(measured.evaluation, folder / CONFUSION)


def write_report(measured: Measured, settings: Settings, recipe: ClipsRecipe, span: float) -> None:
    """Write the HTML report."""
    found, folder = measured.survey, settings.output
    notes = list(measured.warnings)
    if (note := selection_note(measured.models)) is not None:
        notes.append(note)
    shown = {title: folder / name for title, name in (("Training", CURVES),) if (folder / name).is_file()}
    changed = {name: str(value) for name, value in sorted(_changed(recipe).items())}
    details = {
        "start": settings.init,
        "window": f"{quantity(_frames(measured), 'frame')} over {plain(span)} s",
        "split": f"by {found.split.by}, {quantity(len(found.clips.folds), 'fold')}",
        "size and length alone": f"recognise {percent(found.control)}",
        "recipe": ", ".join(f"{name} {value}" for name, value in changed.items()),
    }
    rows = [("class", "clips"), *class_table(found)]
    report.write(
        report.Report(
            measured.evaluation,
            data=str(settings.clips),
            details=details,
            tables={"The clips": rows},
            notes=notes,
            pictures=shown,
        ),
        folder / REPORT,
    )


def _frames(measured: Measured) -> int:
    path = next(iter(measured.models.values())).path
    from vmp_edge.models import checkpoint_file

    return int(checkpoint_file.read(path)["sampling"]["frames"])


def _changed(recipe: ClipsRecipe) -> dict[str, Any]:
    """Return the recipe's most telling settings."""
    shown = ("epochs", "batch", "learning_rate", "augmentation", "mixup", "cutmix", "drop_path", "layer_decay", "seed")
    return {name: getattr(recipe, name) for name in shown}


def to_dict(measured: Measured, settings: Settings, recipe: ClipsRecipe, span: float) -> dict[str, Any]:
    """Return all results in the form of ``results.json``, apart from what the final model adds."""
    evaluation, found, cut = measured.evaluation, measured.survey, measured.cut
    folds = list(evaluation.by_fold().values())
    geometry = {"width": cut.width, "height": cut.height, "seconds": round(cut.seconds, 3)} if cut else None
    before = found.control if measured.control_before is None else measured.control_before
    after = {} if measured.control_before is None else {"geometry_control_after": round(found.control, 4)}
    values = evaluation.to_dict()
    return {
        "measured": values.pop("bundle"),
        **values,
        "skipped": [{"path": str(video.path), "reason": video.reason} for video in found.skipped],
        "folds_deviation": round(float(np.std(folds)), 4) if folds else None,
        "warnings": list(measured.warnings),
        "all_clips": len(found.clips),
        "split": found.split.by,
        "geometry_control": round(before, 4),
        **after,
        "geometry": geometry,
        "init": settings.init,
        "image_size": next(iter(_options(measured))),
        "sampling": {"frames": _frames(measured), "span": span},
        "recipe": dataclasses.asdict(recipe),
        "models": {
            name: {"path": str(trained.path), "epochs": len(trained.history), "kept_epoch": trained.epoch}
            for name, trained in measured.models.items()
        },
    }


def _options(measured: Measured) -> list[int]:
    from vmp_edge.models import checkpoint_file

    return [int(checkpoint_file.read(trained.path)["options"]["image_size"]) for trained in measured.models.values()]


def write(values: Mapping[str, Any], folder: Path) -> None:
    """Write ``results.json``."""
    with whole(folder / RESULTS) as place:
        place.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def next_commands(settings: Settings, clips: int) -> list[tuple[str, str]]:
    """Return what to do with the result: a few words and a command for each.

    Args:
        settings: What the user asked for.
        clips: Number of all clips.
    """
    from vmp_edge.compile.plan import CLIPS as USUAL

    few = f" --calibration-clips {clips}" if clips < USUAL else ""
    folder = settings.output
    model, bundle = shlex.quote(str(folder / f"{FINAL}.pth")), shlex.quote(str(folder / BUNDLE))
    table = shlex.quote(str(folder / CLIPS))
    return [
        ("the webcam", f"vmp-edge run {bundle} --source 0"),
        ("a web page", f"vmp-edge serve {bundle} --source 0"),
        (
            "a quarter of the size",
            f"vmp-edge build --target host --checkpoint {model} --precision int8 --calibrate {table}{few} "
            f"--output {shlex.quote(str(folder / 'int8'))}",
        ),
        (
            "another device",
            f"vmp-edge build --target {_OTHER_TARGET} --checkpoint {model} "
            f"--output {shlex.quote(str(folder / _OTHER_TARGET))}    (vmp-edge targets lists all)",
        ),
    ]


def time_line(spent: float, foretold: float | None) -> str:
    """Return a sentence on how long the training took."""
    said = f", foretold were {duration(foretold)} at most" if foretold is not None else ""
    return f"done in {duration(spent)}{said}"
