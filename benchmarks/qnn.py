"""Measure what egomotion-nano recognises under Qualcomm's emulator of the HTP, beside the source model.

Takes a bundle that was built for `android-qnn` or `onnx-qnn`, and labelled procedural clips that training never drew.
The emulator takes seconds for each clip. So benchmarks/results/qnn.md and qnn.yaml are written after every clip, and
the benchmark can be stopped at any time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rows
import torch

from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration.egomotion import dataset
from vmp_edge.compile import target
from vmp_edge.compile.lowerings.delegates import onnx_qnn, qnn
from vmp_edge.compile.parity import alike
from vmp_edge.models import zoo
from vmp_edge.runtimes.folding import fold

TABLE = Path(__file__).parent / "results" / "qnn.yaml"


def load_program(bundle: Bundle) -> Callable[[Any], Any]:
    """Load a bundle's program into the emulator.

    Returns:
        Function from frames (T / tubelet, tubelet * 3, H, W) to logits (1, classes).
    """
    manifest = bundle.manifest
    content = (bundle.path / manifest.program).read_bytes()
    if manifest.engine == "onnxruntime":
        assert manifest.soc is not None
        return onnx_qnn.Program(content, target.load(manifest.target).socs[manifest.soc]).run
    qnn.load_toolchain()
    return qnn.Program(content).run


def measure(bundle: Bundle, clips: int) -> None:
    """Run the clips one by one, and write the results so far after each."""
    manifest = bundle.manifest
    source, run = zoo.load(manifest.name).module, load_program(bundle)
    actual, expected, labels = [], [], []
    for index in range(clips):
        clip, label = dataset.draw("test", index)
        video = manifest.preprocessing.clip(clip)
        actual += [run(frames)[0] for frames in fold(video, manifest.model["tubelet_size"])]
        with torch.no_grad():
            expected.append(source(torch.from_numpy(np.ascontiguousarray(video))).numpy()[0])
        labels.append(label)
        row = row_of(np.stack(actual), np.stack(expected), np.array(labels))
        key = f"{manifest.target} {manifest.precision} {manifest.soc}"
        rows.put(TABLE, key, {**row, "tools": dict(manifest.tools)}, table)
        print(f"{index + 1}/{clips} {row}", file=sys.stderr)


def row_of(actual: Any, expected: Any, labels: Any) -> dict[str, Any]:
    """Return the row for logits of the bundle and the source model, (N, classes), and labels (N,)."""
    top1 = {
        name: round(float((logits.argmax(1) == labels).mean()), 4)
        for name, logits in (("top1", actual), ("source_top1", expected))
    }
    return {"clips": len(labels), **top1, **alike(actual, expected)}


def table(results: rows.Rows) -> str:
    """Return the table in Markdown."""
    lines = [
        "# egomotion-nano under Qualcomm's x86 emulator of the HTP",
        "",
        "Labelled procedural clips of the split `test`, whose labels take turns. The source model in float32 runs on",
        "the same clips. Agreement: how often both recognise the same label. SNR: signal-to-noise ratio of the logits.",
        "",
        "| target | precision | SoC | clips | top-1 | source model's | agreement | SNR, dB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, row in sorted(results.items()):
        shares = (f"{100 * row[name]:.1f}%" for name in ("top1", "source_top1", "agreement"))
        lines.append(f"| {' | '.join(key.split())} | {row['clips']} | {' | '.join(shares)} | {row['snr']} |")
    return "\n".join([*lines, "", "Made by `python benchmarks/qnn.py BUNDLE --clips N`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of a bundle for android-qnn or onnx-qnn")
    parser.add_argument("--clips", type=int, default=200)
    options = parser.parse_args()
    measure(Bundle.open(options.bundle, any_machine=True), options.clips)


if __name__ == "__main__":
    main()
