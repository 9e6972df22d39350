"""Train a model for each fold of a clip set, and measure it on the videos that it was not trained on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.files import make_output_folder, whole
from vmp_edge.models import PRESETS, VideoMamba, create, load_checkpoint, zoo
from vmp_edge.preprocessing import Preprocessing

from ..clipset import ClipSet, need_scikit_learn
from ..decoding import Input, Progress, Sampling, Video
from ..measure import Evaluation, Subject, evaluate, merge
from ..train.loop import Task, Trainer, divided, load_teacher, save
from ..train.recipe import TrainingRecipe
from . import dataset, geometry
from .dataset import Clips
from .geometry import Cut

ARCHITECTURE = "egomotion-nano"
STARTS = (ARCHITECTURE, "scratch")


@dataclass(frozen=True)
class ActionsTraining(TrainingRecipe):
    """All settings that decide the result, apart from the videos and the machine.

    Attributes:
        start: ``egomotion-nano`` starts from its weights, learnt on procedural motion; ``scratch`` from random weights.
        teacher: Folder of an earlier run on the same folds, whose ``fold-N.pth`` teaches fold N's model.
        frames: T, spread over a video.
        image_size: S.
        clips: Clips of a video whose scores are averaged when a fold is measured.
    """

    epochs: int = 60
    batch: int = 8
    learning_rate: float = 1e-3
    smoothing: float = 0.1
    average: float = 0.99
    start: str = ARCHITECTURE
    frames: int = 8
    image_size: int = 112
    clips: int = 3

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UsageError(f"a model starts from {' or '.join(STARTS)}, not {self.start!r}")
        super().__post_init__()
        preset = PRESETS[ARCHITECTURE]
        if self.start != "scratch" and (self.embed_dim, self.depth) != (preset.embed_dim, preset.depth):
            raise UsageError(f"a model of another size than {ARCHITECTURE} starts from scratch: give --start scratch")


def make_model(recipe: ActionsTraining, classes: int) -> VideoMamba:
    """Make a model of egomotion-nano's architecture with the recipe's initial weights and a new head."""
    torch.manual_seed(recipe.seed)
    frames, size = recipe.frames, recipe.image_size
    widths = {"embed_dim": recipe.embed_dim, "depth": recipe.depth}
    model = create(ARCHITECTURE, num_classes=classes, num_frames=frames, image_size=size, **widths)
    if recipe.start != "scratch":
        trained = load_checkpoint(zoo.FOLDER / f"{recipe.start}.pth", num_frames=frames, image_size=size).state_dict()
        head = {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
        model.load_state_dict({**trained, **head})
    return model


def train_fold(
    recipe: ActionsTraining, clips: Clips, labels: tuple[str, ...], fold: int, folder: Path, progress: Progress
) -> Path:
    """Train a fold's model, or keep the model that an earlier run has finished.

    Args:
        recipe: See `ActionsTraining`.
        clips: The videos of all folds.
        labels: Names of the classes.
        fold: The fold that is held out.
        folder: Gets ``fold-N.pth``; a run that was stopped resumes from ``fold-N.checkpoint``.
        progress: Makes the progress bar, like `tqdm.tqdm`.

    Returns:
        Path of the file, which has ``model``, ``options``, ``labels``, ``preprocessing`` and ``recipe``.

    Raises:
        UsageError: The folder holds a run with another recipe, or the fold leaves fewer videos than a batch.
    """
    preprocessing = Preprocessing(recipe.image_size)
    training_clips = clips.outside(fold)
    task = Task(
        name=f"fold {fold}",
        batches=lambda rng, part: divided(
            dataset.training_batches(training_clips, recipe.batch, recipe.frames, preprocessing, rng), part
        ),
        steps=len(training_clips.labels) // recipe.batch,
    )
    if not task.steps:
        raise UsageError(f"fold {fold} leaves {len(training_clips.labels)} videos to train on, fewer than a batch")
    model, name = make_model(recipe, len(labels)), f"fold-{fold}"
    teacher = load_teacher(Path(recipe.teacher) / f"{name}.pth", model) if recipe.teacher else None
    trainer = Trainer(recipe, model, task, folder / f"{name}.checkpoint", teacher)
    trainer.run(progress)
    content = {
        "model": trainer.best,
        "options": dataclasses.asdict(trainer.model.options),
        "labels": list(labels),
        "preprocessing": preprocessing.to_manifest(),
        "recipe": dataclasses.asdict(recipe),
    }
    path = folder / f"{name}.pth"
    save(content, path)
    return path


def subject(path: Path) -> Subject:
    """Return a fold's model, run by PyTorch, as a model to measure."""
    content = torch.load(path, weights_only=True)
    model = load_checkpoint(path)
    size = model.options.image_size
    model_input = Input(model.options.num_frames, Preprocessing.from_manifest(content["preprocessing"], size))

    def run(video: Video) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(np.ascontiguousarray(video))))

    facts = {"engine": "torch", "precision": "fp32", "bytes": path.stat().st_size}
    return Subject(str(path), tuple(content["labels"]), model_input, run, facts)


def train(
    recipe: ActionsTraining,
    clips: ClipSet,
    folder: Path,
    one_geometry: bool,
    progress: Progress,
    workers: int | None = None,
) -> dict[str, Any]:
    """Train and measure the models of all folds.

    Args:
        recipe: See `ActionsTraining`.
        clips: Labelled videos with folds.
        folder: Gets the models, ``clips.csv`` (the videos with their folds), ``labels.txt`` and ``results.json``.
        one_geometry: True cuts the videos to one size and length first.
        progress: Makes progress bars, like `tqdm.tqdm`.
        workers: See `in_workers`.

    Returns:
        The content of ``results.json``.

    Raises:
        UsageError: The folder holds a run with another recipe, other videos or other folds; or the teacher's run had
            other videos or folds.
        ClipSetError: No video can be used.
    """
    make_output_folder(folder)
    need_scikit_learn()
    clips, geometries, skipped = geometry.measure(clips, progress, workers)
    controls = {"geometry_control": geometry.control(clips, geometries)}
    cut: Cut | None = None
    if one_geometry:
        clips, cut = geometry.bring_to_one(clips, geometries, folder / "clips", progress, workers)
        clips, geometries, _ = geometry.measure(clips, progress, workers)
        controls["geometry_control_after"] = geometry.control(clips, geometries)
    if recipe.teacher:
        _check_teacher(Path(recipe.teacher), clips.csv(folder))
    _keep_folds(clips, folder / "clips.csv")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in clips.labels))
    pixels = dataset.load(clips, recipe.frames, recipe.image_size, progress, workers)
    parts = []
    for fold in clips.folds:
        path = train_fold(recipe, pixels, clips.labels, fold, folder, progress)
        parts += evaluate([subject(path)], clips.fold(fold), Sampling(clips=recipe.clips), workers=workers)
    evaluation = dataclasses.replace(merge(parts, clips.name), skipped=tuple(skipped))
    results = summary(evaluation, recipe, controls, cut)
    with whole(folder / "results.json") as place:
        place.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _keep_folds(clips: ClipSet, path: Path) -> None:
    """Write the clip set, or check that a run to resume has the same: its models have seen the other folds' videos."""
    if path.exists() and path.read_text(encoding="utf-8") != clips.csv(path.parent):
        raise UsageError(f"{path} belongs to a run on other videos or folds: choose another --output")
    clips.write(path)


def _check_teacher(folder: Path, csv: str) -> None:
    """Check that the teacher's run had this run's folds: otherwise it may have learnt from videos held out here.

    Args:
        folder: The teacher's run.
        csv: This run's clip set, see `ClipSet.csv`.
    """
    path = folder / "clips.csv"
    if not path.is_file():
        raise UsageError(f"{folder} holds no clips.csv: --teacher takes the --output of an earlier run")
    if path.read_text(encoding="utf-8") != csv:
        raise UsageError(
            f"{path} has other videos or folds than this run: give both the same --data, --folds and --seed"
        )


def summary(
    evaluation: Evaluation, recipe: ActionsTraining, controls: dict[str, dict[int, float]], cut: Cut | None
) -> dict[str, Any]:
    """Return the results in the form of ``results.json``."""
    folds = list(evaluation.by_fold().values())
    geometry_of = {"width": cut.width, "height": cut.height, "seconds": round(cut.seconds, 3)} if cut else None
    return {
        **evaluation.to_dict(),
        "folds_deviation": round(float(np.std(folds)), 4),
        **{name: round(float(np.mean(list(values.values()))), 4) for name, values in controls.items()},
        "geometry": geometry_of,
        "recipe": dataclasses.asdict(recipe),
    }
