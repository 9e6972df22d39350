"""Measure what int8 costs in accuracy, and which parts of the recipes are worth having; write the table.

Models and clips: egomotion-nano on its procedural test clips and on footage (`--footage`), the models of
`python -m vmp_edge.calibration.actions` on the videos of their folds (`--folds NAME=DIR`), each calibrated on videos of
the other folds, and videomambapro-tiny with random weights of a trained model's statistics.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import vmp_edge
from vmp_edge.calibration import clipset, quantisation
from vmp_edge.calibration.decoding import Input, Prepare, Sampling, Skipped, Video, in_workers
from vmp_edge.calibration.egomotion import dataset, footage
from vmp_edge.calibration.quantisation import Recipe
from vmp_edge.compile import graph, target
from vmp_edge.compile.lowerings import executorch
from vmp_edge.compile.lowerings.tvm import lowering as tvm
from vmp_edge.compile.parity import moving_scene
from vmp_edge.models import VideoMamba, load_checkpoint, zoo
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import softmax
from vmp_edge.runtimes.executorch.engine import ExecuTorchEngine
from vmp_edge.runtimes.executorch.library import LIBRARY, build_library
from vmp_edge.runtimes.tvm.engine import TvmEngine

FOLDER = Path(__file__).parent / "results"
RESULTS = {
    "accuracy": FOLDER / "quantisation.md",
    "ablation": FOLDER / "recipes.md",
    "weights": FOLDER / "weights.md",
}
CALIBRATION = 64
PRECISIONS = ("int8", "int8-dynamic", "int8-weight-only")
Run = Callable[[Video], NDArray[np.float32]]


@dataclass(frozen=True)
class Case:
    """A model, what it is calibrated on, and what it is measured on.

    Attributes:
        data: name of the data set; cases of one name are its folds.
        model: the source model.
        calibration: float32 (N, 3, T, S, S).
        videos: float32 (clips, 3, T, S, S) each; the scores of a video's clips are averaged.
        labels: index of each video's label; None where there is no true one.
    """

    data: str
    model: VideoMamba
    calibration: Video
    videos: list[Video]
    labels: NDArray[np.int64] | None


@dataclass(frozen=True)
class Outcome:
    """What a case gave: top-1 of float and int8 in percent, agreement in percent, cosine of all logits."""

    videos: int
    float_top1: float | None
    top1: float | None
    agreement: float
    cosine: float


Found = dict[tuple[str, str, str], list[Outcome]]  # by data, recipe and engine


def egomotion(calibration: str, test: str, count: int, folder: Path) -> Iterator[Case]:
    """egomotion-nano on procedural clips, and on real footage if there is a folder of it."""
    model = zoo.load("egomotion-nano").module
    given = dataset.normalise(torch.from_numpy(pixels(calibration, CALIBRATION, folder))).numpy()
    videos = dataset.normalise(torch.from_numpy(pixels(test, count, folder))).numpy()
    yield Case(f"egomotion-nano, {test} clips", model, given, [*videos[:, None]], np.arange(count) % 10)


def egomotion_footage(place: Path, folder: Path) -> Iterator[Case]:
    """The same on windows of real footage under a known camera path."""
    model = zoo.load("egomotion-nano").module
    given = dataset.normalise(torch.from_numpy(pixels("calibration", CALIBRATION, folder))).numpy()
    pool = footage.make_footage_pool(place)[0]
    videos = dataset.normalise(torch.from_numpy(np.array(pool.clips))).numpy()
    yield Case("egomotion-nano, real footage", model, given, [*videos[:, None]], pool.labels)


def pixels(split: str, count: int, folder: Path) -> NDArray[np.uint8]:
    return np.array(dataset.make_pool(split, count, folder / f"{split}-{count}.npy").clips)


def folds(name: str, place: Path, count: int | None = None) -> Iterator[Case]:
    """A data set's models, each with the videos that it was not trained on."""
    clips = clipset.read(place / "clips.csv")
    labels = [line for line in (place / "labels.txt").read_text().splitlines() if line]
    content = torch.load(place / f"fold-{clips.folds[0]}.pth", weights_only=True)
    options = content["options"]
    taken = Input(options["num_frames"], Preprocessing.from_manifest(content["preprocessing"], options["image_size"]))
    job = Prepare((taken,), Sampling(clips=content["recipe"]["clips"]))
    with closing(in_workers(job, clips.shuffled().entries)) as results:
        decoded = [
            (entry, found[0])
            for entry, found in tqdm(results, total=len(clips), desc=name, disable=None)
            if not isinstance(found, Skipped)
        ]
    for fold in clips.folds[:count]:
        others = [videos[len(videos) // 2] for entry, videos in decoded if entry.fold != fold]
        held_out = [(labels.index(str(entry.label)), videos) for entry, videos in decoded if entry.fold == fold]
        yield Case(
            name,
            load_checkpoint(place / f"fold-{fold}.pth"),
            np.stack(others[:CALIBRATION]),
            [videos for _, videos in held_out],
            np.array([label for label, _ in held_out]),
        )


def tiny(count: int = 8) -> Iterator[Case]:
    """videomambapro-tiny with random weights whose sizes are those of a trained model's, on synthetic scenes."""
    torch.manual_seed(0)
    model = vmp_edge.models.create("videomambapro-tiny", num_frames=8, image_size=224)
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if name.endswith(("embed", "embedding", "token")):
            parameter.data = 0.3 * noise
        elif name.endswith(("norm.weight", "norm_f.weight")):
            parameter.data += 0.1 * noise
        elif name.endswith((".D", "A_log", "A_b_log", "dt_proj.bias")):
            parameter.data += 0.3 * noise
        elif name.endswith(("x_proj.weight", "head.weight")):
            parameter.data = noise / parameter.shape[1] ** 0.5
        elif name.endswith("out_proj.weight"):  # each block adds about as much as there is
            parameter.data = 3 * noise / parameter.shape[1] ** 0.5
        elif name == "patch_embed.proj.weight":
            parameter.data = 0.09 * noise
    shape = SimpleNamespace(manifest=SimpleNamespace(frames=8, image_size=224))
    scenes = [Preprocessing(224).clip(moving_scene(seed, shape)) for seed in range(2 * count)]
    yield Case("videomambapro-tiny, 8x224x224", model, np.concatenate(scenes[:count]), scenes[count:], None)


def frames(case: Case, video: Video) -> torch.Tensor:
    return graph.fold_frames(torch.from_numpy(np.ascontiguousarray(video)), case.model.options.tubelet_size)


def in_pytorch(case: Case, program: Any, *_: Any) -> Run:
    """The program as PyTorch runs it."""
    module = program.module(check_guards=False)
    return lambda video: module(frames(case, video)).numpy()


def in_executorch(case: Case, program: Any, precision: str, folder: Path) -> Run:
    """An engine for a program; it reads its file when it is made."""
    (folder / LIBRARY).write_bytes(build_library().read_bytes())
    (folder / "model.pte").write_bytes(executorch.to_executorch(program).buffer)
    return ExecuTorchEngine(as_bundle(case, folder, "model.pte")).run


def in_tvm(case: Case, program: Any, precision: str, folder: Path) -> Run:
    """As `in_executorch`."""
    tvm.to_library(program, tvm.resolve(target.load("host"), precision), folder / "model.so")
    return TvmEngine(as_bundle(case, folder, "model.so"), threads=1).run


ENGINES = {"torch": in_pytorch, "executorch": in_executorch, "tvm": in_tvm}


def as_bundle(case: Case, folder: Path, program: str) -> Any:
    """What the engines look up in a bundle."""
    options = case.model.options
    manifest = SimpleNamespace(
        program=program,
        model=vars(options),
        labels=range(options.num_classes),
        outputs=options.num_classes,
        frames=options.num_frames,
        image_size=options.image_size,
        cpu_features=(),
        gpu={},
    )
    return SimpleNamespace(path=folder, program=folder / program, manifest=manifest, embedding=None)


def logits_of(case: Case, run: Run) -> list[NDArray[np.float32]]:
    """Of each video, (clips, classes)."""
    with torch.no_grad():
        return [np.concatenate([run(video[i : i + 1]) for i in range(len(video))]) for video in case.videos]


def compare(case: Case, ours: Sequence[NDArray[np.float32]], theirs: Sequence[NDArray[np.float32]]) -> Outcome:
    """int8 with float."""
    got, expected = (
        np.array([np.mean([softmax(row) for row in one], 0).argmax() for one in x]) for x in (ours, theirs)
    )
    a, b = np.concatenate(ours).ravel(), np.concatenate(theirs).ravel()
    top1 = [None, None] if case.labels is None else [100 * float((x == case.labels).mean()) for x in (expected, got)]
    cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    return Outcome(len(got), *top1, 100 * float((got == expected).mean()), cosine)


def measure(cases: Sequence[Case], recipes: dict[str, Recipe], engines: Sequence[str]) -> Found:
    """All recipes on all cases and engines."""
    found: Found = {}
    for case in cases:
        program = graph.export(case.model)
        calibration = [frames(case, video[None]) for video in case.calibration]
        expected = logits_of(case, in_pytorch(case, program))
        for name, recipe in recipes.items():
            quantised = quantisation.quantise(program, recipe, calibration)
            for engine in engines:
                with tempfile.TemporaryDirectory() as folder:
                    run = ENGINES[engine](case, quantised, name, Path(folder))
                    outcome = compare(case, logits_of(case, run), expected)
                print(f"{case.data}: {name}, {engine}: {outcome}", file=sys.stderr, flush=True)
                found.setdefault((case.data, name, engine), []).append(outcome)
    return found


def ablation(base: Recipe) -> dict[str, Recipe]:
    """The static recipe, and what differs from it in one thing."""
    small = ("*.dt_down", "*.dt_up", "*.B", "*.C")
    change: dict[str, dict[str, Any]] = {
        "the recipe `int8`": {},
        "inputs: percentile 99.999": {"ranges": "percentile"},
        "inputs: mse": {"ranges": "mse"},
        "outputs: percentile 99.99": {"percentile": 99.99},
        "outputs: percentile 99.9": {"percentile": 99.9},
        "outputs: mse": {"outputs": "mse"},
        "outputs: minmax": {"outputs": "minmax"},
        "outputs in float": {"outputs": None},
        "outputs in float; inputs: percentile 99.999": {"outputs": None, "ranges": "percentile"},
        "outputs in float; inputs: mse": {"outputs": None, "ranges": "mse"},
        "everything static": {"dynamic": ()},
        "static but dt, B, C": {"dynamic": small},
        "static but out and head": {"dynamic": ("*.out", "head")},
        "dynamic but the patches": {"dynamic": ("blocks.*", "head")},
        "everything static, also the norms' means": {"dynamic": (), "keep_float": ()},
        "smoothed in_x, in_z (0.5)": {"smooth": 0.5, "smoothed": ("*.in_x", "*.in_z")},
        "smoothed out (0.5)": {"smooth": 0.5, "smoothed": ("*.out",)},
        "rotated out": {"rotated": ("*.out",)},
        "rotated in_x, in_z": {"rotated": ("*.in_x", "*.in_z")},
        "static but dt, B, C; rotated out": {"dynamic": small, "rotated": ("*.out",)},
        "static but dt, B, C; smoothed out (0.5)": {"dynamic": small, "smooth": 0.5, "smoothed": ("*.out",)},
    }
    return {name: dataclasses.replace(base, **values) for name, values in change.items()}


def mean(outcomes: Sequence[Outcome], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in outcomes]))


def accuracy_table(found: Found) -> list[str]:
    head = ["model and clips", "videos", "float top-1", "precision", "engine", "top-1", "points", "agreement"]
    rows = ["| " + " | ".join([*head, "cosine of logits"]) + " |", "|---" * (len(head) + 1) + "|"]
    for (data, precision, engine), several in found.items():
        count = sum(one.videos for one in several)
        agreement = sum(one.agreement * one.videos for one in several) / count
        top1 = ("", "", "")
        if several[0].top1 is not None:
            ours, theirs = mean(several, "top1"), mean(several, "float_top1")
            top1 = (f"{theirs:.2f}", f"{ours:.2f}", f"{ours - theirs:+.2f}")
        rows.append(
            f"| {data} | {count} | {top1[0]} | {precision} | {engine} | {top1[1]} | {top1[2]} | {agreement:.2f} "
            f"| {mean(several, 'cosine'):.4f} |"
        )
    return rows


def ablation_table(found: Found) -> list[str]:
    data = list(dict.fromkeys(data for data, *_ in found))
    rows = ["| recipe | " + " | ".join(f"{name}: cosine, agreement" for name in data) + " |"]
    rows += ["|---" * (1 + len(data)) + "|"]
    for name in dict.fromkeys(name for _, name, _ in found):
        several = [found[d, name, "torch"] for d in data]
        cells = [f"{mean(one, 'cosine'):.4f}, {mean(one, 'agreement'):.1f}" for one in several]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def weights_table() -> list[str]:
    """Bytes by precision: of the layers' weights with their scales, and of all that TVM's program holds."""
    case = next(tiny(1))
    program = graph.export(case.model)
    recipes = {"fp32": None, **{name: quantisation.load(name) for name in PRECISIONS}}
    sizes: dict[str, tuple[int, int]] = {}
    for name, recipe in recipes.items():
        calibration = [frames(case, video[None]) for video in case.calibration]
        made = program if recipe is None else quantisation.quantise(program, recipe, calibration)
        sizes[name] = sum(layer_weights(made).values()), sum(tvm_constants(made, name))
    rows = ["| precision | layers' weights, MB | of fp32 | all that TVM holds, MB | of fp32 |", "|---" * 5 + "|"]
    for name, both in sizes.items():
        cells = (f"{size / 1e6:.2f} | {size / whole:.1%}" for size, whole in zip(both, sizes["fp32"], strict=True))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def layer_weights(program: Any) -> dict[str, int]:
    """Bytes of each linear layer's and convolution's weight, of int8 ones with the scales."""
    module = program.module(check_guards=False)
    held = dict([*module.named_parameters(), *module.named_buffers()])
    weights = (node.args[1] for node in module.graph.nodes if node.target in quantisation.LAYERS)
    parts = (part for weight in weights for part in ([weight] if weight.op == "get_attr" else weight.args[:2]))
    return {part.target: held[part.target].nbytes for part in parts}


def tvm_constants(program: Any, precision: str) -> Iterator[int]:
    """Bytes of each tensor in a program of TVM's, before machine code is made of it."""
    from tvm import ir, relax

    from vmp_edge.compile.lowerings.tvm import cpu, tuning
    from vmp_edge.compile.lowerings.tvm.gemm_int8 import DOTS

    kind = tvm.resolve(target.load("host"), precision)
    module = cpu.to_relax(program, tuning.load(kind), DOTS[kind.simd])
    found: list[Any] = []
    relax.analysis.post_order_visit(module["main"], found.append)
    yield from (one.value.numpy().nbytes for one in found if isinstance(one, ir.expr.GenericConst))


def time_build() -> str:
    """Seconds of a whole int8 build of egomotion-nano in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vmp_edge", "build", "--target", "host", "--precision", "int8"]
        start = time.perf_counter()
        subprocess.run([*command, "--output", f"{folder}/b"], check=True, capture_output=True)
        return f"{time.perf_counter() - start:.0f} s"


TITLES = {
    "accuracy": f"""# Accuracy in int8

Top-1 in percent; of data sets with folds the mean over them, each fold's videos by the model that was not trained on
them, calibrated on {CALIBRATION} videos of the other folds. Agreement: percent of the videos that int8 and float take
for the same. Cosine: between the logits of all clips of a case. Measured on the programs that the engines run; float is
the exported program in PyTorch.
""",
    "ablation": """# Which parts of the recipe `int8` are worth it

The quantised programs run by PyTorch (the same numbers: integers in float arithmetic), one thing changed at a time, on
procedural validation clips and on what else the head of the table names. Cosine: between the logits of all clips of a
case. Agreement: percent of the videos that int8 and float take for the same.
""",
    "weights": """# Weights in int8

Of a videomambapro-tiny at 8x224x224. All that TVM holds: the weights, filled up to whole registers, and what stays in
float: decay rates, convolutions, biases and positions. Files have code, too: their sizes are in model_int8.md.
""",
}


def make_cases(options: argparse.Namespace) -> Iterator[Case]:
    """What a table is measured on, but videomambapro-tiny."""
    split = "validation" if options.what == "ablation" else "test"
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.clips_folder or Path(scratch)
        if options.clips:
            yield from egomotion("calibration", split, options.clips, kept)
        if options.footage:
            yield from egomotion_footage(options.footage, kept)
        for text in options.folds:
            name, _, place = text.partition("=")
            yield from folds(name, Path(place), options.only_folds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=RESULTS, help="which table")
    parser.add_argument("--folds", action="append", default=[], metavar="NAME=DIR", help="output of the training")
    parser.add_argument("--footage", type=Path, metavar="DIR", help="real videos for egomotion-nano")
    parser.add_argument("--clips", type=int, default=1000, help="procedural clips, 0 for none (default: %(default)s)")
    parser.add_argument("--clips-folder", type=Path, metavar="DIR", help="where they are kept (default: nowhere)")
    parser.add_argument("--only-folds", type=int, metavar="N", help="the first folds of each set (default: all)")
    parser.add_argument("--without-tiny", action="store_true", help="leave videomambapro-tiny out, the slowest")
    parser.add_argument("--engines", nargs="+", default=["executorch", "tvm"], choices=ENGINES, help="default: both")
    parser.add_argument("--precisions", nargs="+", default=[*PRECISIONS], choices=PRECISIONS, help="default: all")
    parser.add_argument("--output", type=Path, help="the table (default: in results/)")
    parser.add_argument("--time-build", action="store_true", help="also time a whole build of egomotion-nano")
    parser.add_argument("--note", action="append", default=[], help="a sentence to be added")
    options = parser.parse_args()
    torch.set_num_threads(1)
    static = quantisation.load("int8")
    engines = ["torch"] if options.what == "ablation" else options.engines
    recipes = (
        ablation(static)
        if options.what == "ablation"
        else {name: quantisation.load(name) for name in options.precisions}
    )
    if options.what == "weights":
        rows = weights_table()
    else:
        cases = [*make_cases(options)]
        found = measure([*cases, *(() if options.without_tiny else tiny())], recipes, engines)
        rows = ablation_table(found) if options.what == "ablation" else accuracy_table(found)
    notes = [*options.note]
    if options.time_build:
        notes.append(f"A whole int8 build of egomotion-nano, clips drawn and 500 measured on: {time_build()}.")
    shown = " ".join(["python benchmarks/quantisation.py", *sys.argv[1:]])
    lines = [TITLES[options.what], *rows, "", *(f"- {note}" for note in notes), "", f"Made by `{shown}`.", ""]
    (options.output or RESULTS[options.what]).write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
