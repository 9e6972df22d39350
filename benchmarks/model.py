"""Time a whole model several ways in one run, and write the table.

(a) published: the arithmetic of the published VideoMambaPro code, a Python loop over the tokens, on this repository's
    weights; (b) source: the source model with the native operators; (c) executorch: the bundle of `--target host`;
    (d) tvm: the bundle of `--engine tvm`; (e) onnxruntime: the bundle of `--target onnx`; then quantised bundles,
    calibrated on synthetic scenes, and one in float16; (m, n) openvino, if it is installed: the bundles of
    `--target openvino`.
Each variant is a process of its own with a fixed number of threads. They take turns, so that a noisy moment affects all
of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.machine import cpu_count, cpu_features, cpu_model

BUNDLES = {  # engine and precision
    "executorch": ("executorch", "fp32"),
    "tvm": ("tvm", "fp32"),
    "onnxruntime": ("onnxruntime", "fp32"),
    "executorch int8": ("executorch", "int8"),
    "executorch int8-dynamic": ("executorch", "int8-dynamic"),
    "executorch int8-weight-only": ("executorch", "int8-weight-only"),
    "tvm int8": ("tvm", "int8"),
    "tvm int8-dynamic": ("tvm", "int8-dynamic"),
    "onnxruntime int8": ("onnxruntime", "int8"),
    "onnxruntime fp16": ("onnxruntime", "fp16"),
    "openvino": ("openvino", "fp32"),
    "openvino int8": ("openvino", "int8"),
}
VARIANTS = dict(zip(["published", "source", *BUNDLES], "abcdefghijklmn", strict=True))
TARGETS = {"onnxruntime": "onnx", "openvino": "openvino"}  # by engine; the host for all others
LIBRARIES = {  # by engine
    "executorch": "executorch",
    "tvm": "apache-tvm",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
WEIGHTS = "weights.pth"
VIDEO = "video.npy"
CALIBRATION = 4  # number of scenes; few are enough, as times do not depend on the ranges
RESULTS = Path(__file__).parent / "results" / "model.md"


def make_runner(variant: str, folder: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a variant's function from video to logits.

    PyTorch is imported only by the variants that run in it, because it takes memory.
    """
    if variant in BUNDLES:
        return vmp_edge.load(folder / variant, threads=threads).predict_video
    import torch
    from published import published_forward

    torch.set_num_threads(threads)
    model = vmp_edge.models.load_checkpoint(folder / WEIGHTS)

    def run(video: np.ndarray) -> np.ndarray:
        with torch.no_grad():  # as the published evaluation does
            tensor = torch.from_numpy(video)
            return (published_forward(model, tensor) if variant == "published" else model(tensor)).numpy()

    return run


def worker(variant: str, folder: Path, threads: int, repeats: int) -> None:
    """Time one variant; print seconds, CPU seconds, peak memory and logits as JSON."""
    run = make_runner(variant, folder, threads)
    video = np.load(folder / VIDEO)
    logits = run(video)
    seconds, cpu = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        run(video)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak_memory(), "logits": logits[0].tolist()}))


def peak_memory() -> float:
    """Return the peak resident MB of this process. (getrusage would count the parent's memory at the fork.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def build(folder: Path, name: str, frames: int, size: int, variants: list[str]) -> dict[str, float]:
    """Write the weights of a random model with a fixed seed, a clip, and the bundles into the folder.

    Returns:
        Seconds of each bundle's build, including its checks.
    """
    import torch
    from scenes import scenes, write

    from vmp_edge.compile import pipeline

    torch.manual_seed(0)
    model = vmp_edge.models.create(name, num_frames=frames, image_size=size)
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, folder / WEIGHTS)
    clips = scenes(frames, size, CALIBRATION + 1)
    np.save(folder / VIDEO, vmp_edge.Preprocessing(size).clip(clips[-1]))
    clip_list = write(clips[:-1], folder)
    seconds = {}
    for variant in filter(BUNDLES.get, variants):
        engine, precision = BUNDLES[variant]
        calibration = {"calibrate": clip_list, "calibration_clips": CALIBRATION} if precision == "int8" else {}
        start = time.perf_counter()
        pipeline.build(
            pipeline.Request(
                TARGETS.get(engine, "host"),
                checkpoint=folder / WEIGHTS,
                output=folder / variant,
                engine=engine,
                precision=precision,
                **calibration,
            )
        )
        seconds[variant] = time.perf_counter() - start
    return seconds


def measure(
    folder: Path, variants: list[str], threads: list[int], rounds: int, repeats: int
) -> dict[tuple[str, int], dict[str, list]]:
    """Time all variants with all numbers of threads in turns."""
    results: dict[tuple[str, int], dict[str, list]] = {}
    for number in range(rounds):
        for count in threads:
            for variant in variants:
                print(f"round {number + 1}/{rounds}: {variant}, threads {count}", file=sys.stderr, flush=True)
                times = 1 if variant == "published" else repeats
                command = [sys.executable, __file__, "--worker", variant, str(folder), str(count), str(times)]
                process = subprocess.run(command, check=True, capture_output=True, text=True)
                answer = json.loads(process.stdout.splitlines()[-1])
                entry = results.setdefault((variant, count), {"seconds": [], "cpu": [], "peak": [], "logits": []})
                entry["seconds"] += answer["seconds"]
                entry["cpu"] += answer["cpu"]
                entry["peak"].append(answer["peak"])
                entry["logits"] = answer["logits"]
    return results


def table(results: dict[tuple[str, int], dict[str, list]], folder: Path) -> list[str]:
    """Return Markdown rows: time, ratios within the run, memory, program size, distance from the source model."""
    measured = {variant for variant, _ in results}
    baselines = [name for name in ("published", "source", "executorch", "tvm", "onnxruntime") if name in measured]
    over = [f"speed over ({VARIANTS[name]})" for name in baselines]
    head = ["", "variant", "threads", "ms a clip", *over, "CPU ms", "peak MB", "program MB", "largest difference"]
    rows = ["| " + " | ".join([*head, "cosine"]) + " |", "|---" * (len(head) + 1) + "|"]
    for (variant, count), entry in sorted(results.items(), key=lambda item: (item[0][1], VARIANTS[item[0][0]])):
        middle = {name: statistics.median(row["seconds"]) for (name, n), row in results.items() if n == count}
        a, b = np.array(entry["logits"]), np.array(results["source", count]["logits"])
        cells = [
            f"({VARIANTS[variant]})",
            variant,
            f"{count}",
            f"{middle[variant] * 1e3:.0f}",
            *(f"{middle[name] / middle[variant]:.2f}" for name in baselines),
            f"{statistics.median(entry['cpu']) * 1e3:.0f}",
            f"{max(entry['peak']):.0f}",
            f"{program_size(folder / variant):.2f}" if variant in BUNDLES else "",
            f"{np.abs(a - b).max():.1e}",
            f"{a @ b / np.sqrt((a @ a) * (b @ b)):.5f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def program_size(bundle: Path) -> float:
    """Return the MB of a bundle's program alone, including its weights."""
    manifest = Bundle.open(bundle).manifest
    return manifest.files[manifest.program].size / 1e6


def is_installed(variant: str) -> bool:
    """Return whether a variant's engine is installed; only OpenVINO may be missing in `make bench`."""
    return not variant.startswith("openvino") or importlib.util.find_spec("openvino") is not None


def cpu_name() -> str:
    """Return the CPU's name, whether it has AVX-512, and the system."""
    vectors = ", AVX-512" if "avx512f" in cpu_features() else ""
    return f"{cpu_model()}{vectors}, {platform.system()}"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="videomambapro-tiny", help="a shared-weights preset (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="frames of the clip (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels of a side (default: %(default)s)")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=[name for name in VARIANTS if is_installed(name)],
        choices=VARIANTS,
        help="default: all whose engine is installed; `source` is always measured",
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each variant (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed clips in a turn, for (a) only one (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="the table (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Build, measure and write the table."""
    args = parse_arguments()
    variants = [name for name in VARIANTS if name in (*args.variants, "source")]
    with tempfile.TemporaryDirectory() as folder:
        build_seconds = build(Path(folder), args.model, args.frames, args.image_size, variants)
        before = os.getloadavg()[0]
        results = measure(Path(folder), variants, args.threads, args.rounds, args.repeats)
        rows = table(results, Path(folder))
    libraries = ["torch", *dict.fromkeys(LIBRARIES[BUNDLES[variant][0]] for variant in build_seconds)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
    command = "python benchmarks/model.py " + shlex.join(sys.argv[1:])
    lines = [
        "# Whole model",
        "",
        f"{args.model}, {args.frames} frames of {args.image_size}x{args.image_size}, batch 1. Medians of one run; "
        "ratios within it.",
        "CPU ms: time of all threads of the process, which beside other work is more reliable than elapsed time.",
        "Peak MB: memory of the process, including Python and all that the variant imports.",
        f"Load average before and after, the benchmark's own included, on {cpu_count()} cores: {before:.1f}, "
        f"{os.getloadavg()[0]:.1f}.",
        "Built and checked in: "
        + ", ".join(f"{engine} {seconds:.0f} s" for engine, seconds in build_seconds.items())
        + ".",
        "",
        *rows,
        "",
        f"{cpu_name()}; {versions}. Made by `{command.strip()}`.",
        "",
    ]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
