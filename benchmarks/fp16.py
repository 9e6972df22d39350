"""Measure what the parts of the recipe `fp16` are worth: versions that keep more or less in float32, in ONNX Runtime.

egomotion-nano on procedural validation clips, and videomambapro-tiny with random weights of a trained model's
statistics on synthetic scenes; on the CPU, one thread, all versions in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from cases import Case, egomotion, frames, tiny
from numpy.typing import NDArray
from scan_directions import on_onnxruntime, timed

from vmp_edge.calibration import quantisation
from vmp_edge.calibration.quantisation import decibels
from vmp_edge.compile import graph
from vmp_edge.compile.lowerings.onnx import lowering as onnx
from vmp_edge.files import whole
from vmp_edge.ops.chunked import Form

RESULTS = Path(__file__).parent / "results" / "fp16.md"
SCAN = Form("scan")
HEAD = ("*normalise.mean", "first", "spatial", "temporal")
STATE = ("*.A", "*.A_b", "*.D", "*.dt_bias")
# Patterns of the parameters that stay float32, by the name of the table's row; None takes those of the recipe.
VERSIONS: dict[str, tuple[str, ...] | None] = {
    "everything (fp32)": ("*",),
    "nothing": (),
    "norms and the stream of tokens": HEAD,
    "scans": STATE,
    "norms, stream, scans": (*HEAD, *STATE),
    "norms, stream, scans, head (the recipe `fp16`)": None,
    "these and the convolutions": (*HEAD, *STATE, "head", "*.conv_weight", "*.conv_bias"),
    "these, the convolutions, dt": (*HEAD, *STATE, "head", "*.conv_weight", "*.conv_bias", "*.dt_down", "*.dt_up"),
}


def versions(case: Case) -> Iterator[tuple[str, bytes]]:
    """Yield the names and ONNX models of a case's versions."""
    program, base = graph.export(case.model), quantisation.load("fp16")
    for name, patterns in VERSIONS.items():
        recipe = base if patterns is None else dataclasses.replace(base, keep_float=patterns)
        yield name, onnx.to_onnx(graph.in_float16(program, recipe.stays), SCAN).SerializeToString()


def rows_of(case: Case, rounds: int) -> list[str]:
    """Measure all versions of a case, and return the table's rows."""
    clips = [frames(case, clip[None]).numpy() for video in case.videos for clip in video]
    program = graph.export(case.model).module(check_guards=False)
    with torch.no_grad():
        exact = np.concatenate([program(torch.from_numpy(clip)).numpy() for clip in clips]).astype(np.float64)
    models = dict(versions(case))
    runs = {name: on_onnxruntime(content, clips[0]) for name, content in models.items()}
    turns = [{name: timed(run)[1] for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    cpu = {name: statistics.median(turn[name] for turn in turns) for name in models}
    base = cpu["everything (fp32)"]
    lines = []
    for name, content in models.items():
        actual = np.concatenate(logits(content, clips)).astype(np.float64)
        ratio = decibels(float(np.square(exact).sum()), float(np.square(actual - exact).sum()))
        agreement = (actual.argmax(1) == exact.argmax(1)).mean()
        cells = f"{len(content) / 1e6:.2f} | {ratio:.1f} | {agreement:.1%} | {base / cpu[name]:.2f}"
        lines.append(f"| {case.data} | {name} | {cells} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def logits(content: bytes, clips: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return the logits of each clip, (1, classes)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"frames": clip})[0] for clip in clips]


def main() -> None:
    """Parse the command line, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100, help="clips for egomotion-nano (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of timing (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cases = [*egomotion("calibration", "validation", args.clips, Path(folder)), *tiny(2)]
    rows = [row for case in cases for row in rows_of(case, args.rounds)]
    lines = [
        "# What stays float32 in fp16",
        "",
        "ONNX Runtime on the CPU, which computes float16 in float32 between casts. So the speed, relative to fp32, is",
        "mostly that of the casts. SNR: signal-to-noise ratio of the logits beside the source model. Agreement: how",
        "often both recognise the same label.",
        "",
        "| model and clips | what stays float32 | MB | SNR, dB | agreement | speed |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}. Made by `python benchmarks/fp16.py --clips "
        f"{args.clips} --rounds {args.rounds}`.",
        "",
    ]
    with whole(RESULTS) as place:
        place.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
