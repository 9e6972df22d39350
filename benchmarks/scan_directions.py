"""Measure what a backend with a scan operator gains if the two directions of a scan are folded into the batch.

Each model is written as an ONNX file twice: with one Scan for both directions, as `vmp_edge.ops.chunked` does it, and
with one Scan for each direction. ONNX Runtime and, if it is installed, OpenVINO run both files in turns, on one thread,
and the results are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional as F

from vmp_edge.compile import graph
from vmp_edge.compile.lowerings.onnx import lowering as onnx
from vmp_edge.models import VideoMamba, zoo
from vmp_edge.models.options import ModelOptions
from vmp_edge.ops import chunked
from vmp_edge.ops.chunked import Form

RESULTS = Path(__file__).parent / "results" / "scan_directions.md"
SCAN = Form("scan")
BLOCKS = 4
TINY = {"embed_dim": 192, "depth": BLOCKS, "image_size": 224, "num_frames": 8, "num_classes": 10}
Run = Callable[[], Any]


def apart(
    x: Tensor, dt: Tensor, A: Tensor, A_b: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, dt_bias: Tensor,
    initial_state: str, mask_backward: bool,
) -> Tensor:  # fmt: skip
    """Compute `chunked.bi_selective_scan` as two scans."""
    options = {"dt_bias": dt_bias, "initial_state": initial_state, "form": SCAN}
    forward = chunked.selective_scan(x, dt, A, B, C, **options)
    backward = chunked.selective_scan(x, dt, A_b, B, C, **options, reverse=True, mask_diagonal=mask_backward)
    return (forward + backward + 2.0 * D * x) * F.silu(z)


def programs() -> dict[str, ExportedProgram]:
    """Return the exported models, by their names in the table."""
    torch.manual_seed(0)
    tiny = VideoMamba(ModelOptions(**TINY)).eval()
    for block in tiny.blocks():
        block.mixer.A_b_log.data += 0.1  # as in a trained model, the directions' rates differ
    models = {"egomotion-nano": zoo.load("egomotion-nano").module, f"{BLOCKS} blocks of videomambapro-tiny": tiny}
    return {name: graph.export(model) for name, model in models.items()}


def on_onnxruntime(content: bytes, frames: Any) -> Run:
    """Load an ONNX model into ONNX Runtime; the call runs it on the frames."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"frames": frames})[0]


def on_openvino(content: bytes, frames: Any) -> Run:
    """Load an ONNX model into OpenVINO; the call runs it on the frames."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(openvino.Core().read_model(content), "CPU", options)
    return lambda: np.array(model(frames)[0])


def engines() -> dict[str, Callable[[bytes, Any], Run]]:
    """Return the engines that are installed, by name."""
    loaders = {"ONNX Runtime": on_onnxruntime}
    try:
        import openvino  # noqa: F401
    except ImportError:
        return loaders
    return {**loaders, "OpenVINO": on_openvino}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function; return its result and the CPU seconds that it took."""
    before = time.process_time()
    return work(), time.process_time() - before


def to_onnx(program: ExportedProgram, scan: Callable[..., Tensor]) -> Any:
    """Convert a program to an ONNX model in which `scan` computes the bidirectional scans."""
    return onnx.to_onnx(program.run_decompositions({torch.ops.vmp.bi_selective_scan.default: scan}), SCAN)


def rows_of(name: str, program: ExportedProgram, rounds: int) -> list[str]:
    """Measure a model; return its rows: for each engine, directions apart and folded."""
    frames = torch.randn(program.example_inputs[0][0].shape).numpy()
    scans = {"apart": apart, "folded": partial(chunked.bi_selective_scan, form=SCAN)}
    models = {key: timed(partial(to_onnx, program, scan)) for key, scan in scans.items()}
    lines = []
    for engine, load in engines().items():
        sessions = {key: timed(partial(load, model.SerializeToString(), frames)) for key, (model, _) in models.items()}
        results = [run() for run, _ in sessions.values()]
        np.testing.assert_allclose(*results, atol=1e-4, rtol=0)
        turns = [{key: timed(run)[1] for key, (run, _) in sessions.items()} for _ in range(rounds)]
        base = statistics.median(turn["apart"] for turn in turns)
        for key, (model, seconds) in models.items():
            ms = statistics.median(turn[key] for turn in turns)
            scan_nodes = sum(node.op_type == "Scan" for node in model.graph.node)
            lines.append(
                f"| {name} | {engine} | {key} | {scan_nodes} | {seconds:.1f} | {sessions[key][1]:.2f} | {1e3 * ms:.2f} "
                f"| {base / ms:.2f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Parse the command line, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="clips that each model runs (default: %(default)s)")
    args = parser.parse_args()
    exported = programs()
    to_onnx(exported["egomotion-nano"], apart)  # the first conversion takes longer, and is not timed
    rows = [row for name, program in exported.items() for row in rows_of(name, program, args.rounds)]
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    if "OpenVINO" in engines():
        import openvino

        versions += f", openvino {openvino.__version__.split('-')[0]}"
    lines = [
        "# Both directions of a scan apart, and folded into the batch",
        "",
        "As ONNX's Scan, float32, one thread. CPU seconds of making the ONNX model and of loading it, median CPU ms of",
        "a clip, taken by turns, and the speed over apart. The last block has two scans always: it scans to one token.",
        "",
        "| model | engine | directions | Scans | to make, s | to load, s | ms a clip | speed |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"{versions}. Made by `python benchmarks/scan_directions.py`.",
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
