"""Measure what learning from another model is worth, on egomotion-nano and its procedural clips, and write a table.

``student``: a smaller model trained on few clips, with and without egomotion-nano as its teacher. ``int8``:
quantisation-aware fine-tuning for a recipe that loses much, and for a recipe that loses next to nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from tqdm import tqdm

from vmp_edge.calibration import quantisation
from vmp_edge.calibration.egomotion import dataset, train
from vmp_edge.calibration.egomotion.dataset import Pool
from vmp_edge.calibration.finetuning import Schedule, finetune
from vmp_edge.compile import graph
from vmp_edge.models import zoo

RESULTS = Path(__file__).parent / "results"
TEACHER = zoo.FOLDER / "egomotion-nano.pth"
LESSONS = {
    "labels alone": {},
    "labels and the teacher's predictions": {"teacher": str(TEACHER)},
    "labels and the teacher's predictions and features": {"teacher": str(TEACHER), "feature_weight": 1.0},
}
HARSHER = {
    "everything static, ranges: percentile 99": {"dynamic": (), "ranges": "percentile", "percentile": 99.0},
    "the recipe `int8`": {},
}
TITLES = {
    "student": """# A small model taught by a larger one

{sizes}, trained on {clips} procedural clips for {epochs}
epochs from the same initial weights, measured on {held_out} other clips. Agreement: percent of these that student and
teacher recognise as the same label. The teacher is egomotion-nano.
""",
    "int8": """# Quantisation-aware fine-tuning

egomotion-nano, calibrated on {clips} procedural clips and fine-tuned on the same clips, without their labels, for
{steps} steps of {batch} clips; measured on {held_out} other clips. Agreement: percent of these that the quantised
program, run by PyTorch, and the float program recognise as the same label. Error: root mean square error of the logits,
in percent of the float logits' root mean square.
""",
}


def pool(split: str, count: int, folder: Path) -> Pool:
    folder.mkdir(parents=True, exist_ok=True)
    return dataset.make_pool(split, count, folder / f"{split}-{count}.npy")


def teach(options: argparse.Namespace, folder: Path) -> tuple[dict[str, int | str], list[str]]:
    """Train students; return the values for the title, and the rows."""
    training, held_out = pool("train", options.clips, folder), pool("validation", options.held_out, folder)
    sizes = {"embed_dim": 48, "depth": 2}
    settings = {"batch": 8, "learning_rate": 1e-3, "average": 0.99}
    recipe = train.EgomotionTraining(epochs=options.epochs, clips=options.clips, **sizes, **settings)
    teacher = train.predict(zoo.load("egomotion-nano").module, held_out)[0].argmax(1)
    rows = ["| learns from | top-1 | agreement with the teacher | seconds |", "|---|---|---|---|"]
    weights = 0
    for name, change in LESSONS.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as place:
            trainer = train.make_trainer(dataclasses.replace(recipe, **change), training, held_out, Path(place))
            trainer.run(tqdm)
        seconds = time.perf_counter() - start
        model = trainer.averaged_model()
        weights = sum(value.numel() for value in model.parameters())
        logits, labels = train.predict(model, held_out)
        guesses = logits.argmax(1)
        top1, agreement = (100 * float((guesses == reference).float().mean()) for reference in (labels, teacher))
        rows.append(f"| {name} | {top1:.1f} | {agreement:.1f} | {seconds:.0f} |")
        print(rows[-1], file=sys.stderr, flush=True)
    size = f"{weights:,} weights ({recipe.embed_dim} channels, {recipe.depth} blocks)"
    return {"sizes": size, "clips": len(training), "epochs": recipe.epochs, "held_out": len(held_out)}, rows


def tune(options: argparse.Namespace, folder: Path) -> tuple[dict[str, int | str], list[str]]:
    """Fine-tune for int8; return the values for the title, and the rows."""
    program = graph.export(zoo.load("egomotion-nano").module)
    calibration, held_out = (
        frames(pool(*part, folder)) for part in (("calibration", 64), ("validation", options.held_out))
    )
    schedule, exact = Schedule(options.steps), logits_of(program, held_out)
    rows = ["| recipe | agreement | error | fine-tuned: agreement | error | seconds |", "|---" * 6 + "|"]
    for name, change in HARSHER.items():
        recipe = dataclasses.replace(quantisation.load("int8"), **change)
        before = compare(quantisation.quantise(program, recipe, calibration), held_out, exact)
        start = time.perf_counter()
        tuned = finetune(program, recipe, calibration, schedule, tqdm)
        seconds = time.perf_counter() - start
        after = compare(quantisation.quantise(tuned, recipe, calibration), held_out, exact)
        rows.append(f"| {name} | {before} | {after} | {seconds:.0f} |")
        print(rows[-1], file=sys.stderr, flush=True)
    values = {"clips": len(calibration), "steps": schedule.steps, "batch": schedule.batch, "held_out": len(held_out)}
    return values, rows


def frames(clips: Pool) -> list[Tensor]:
    """Return a pool's clips in the shape of egomotion-nano's program."""
    video = dataset.normalise(torch.from_numpy(np.array(clips.clips)))
    return [graph.fold_frames(clip[None], zoo.load("egomotion-nano").module.options.tubelet_size) for clip in video]


def logits_of(program: ExportedProgram, clips: list[Tensor]) -> Tensor:
    module = program.module(check_guards=False)
    with torch.no_grad():
        return torch.cat([module(clip) for clip in clips])


def compare(program: ExportedProgram, clips: list[Tensor], exact: Tensor) -> str:
    """Return two cells: agreement and error."""
    logits = logits_of(program, clips)
    agreement = float((logits.argmax(1) == exact.argmax(1)).float().mean())
    return f"{100 * agreement:.1f} | {100 * float((logits - exact).norm() / exact.norm()):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=TITLES)
    parser.add_argument("--clips", type=int, default=2000, help="student: clips to train on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="student: epochs of the training (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="int8: steps of the fine-tuning (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=500, help="clips to measure on (default: %(default)s)")
    parser.add_argument("--clips-folder", type=Path, help="folder that keeps the drawn clips (default: none)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        values, rows = {"student": teach, "int8": tune}[options.what](options, options.clips_folder or Path(scratch))
    command = f"Made by `{' '.join(['python benchmarks/distillation.py', *sys.argv[1:]])}`, one thread."
    place = RESULTS / {"student": "distillation.md", "int8": "finetuning.md"}[options.what]
    place.write_text("\n".join([TITLES[options.what].format(**values), *rows, "", command, ""]))
    print(place.read_text())


if __name__ == "__main__":
    main()
