"""What egomotion-nano recognises under Qualcomm's emulator of the HTP, beside the source model.

Takes bundles that were built for `android-qnn` or `onnx-qnn`, and labelled procedural clips that training never drew.
Writes benchmarks/results/qnn.md and qnn.yaml after every clip, as the emulator takes seconds for each: stop it when
there are enough.
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


def emulated(bundle: Bundle) -> Callable[[Any], Any]:
    """What runs a bundle's program here: frames (T / tubelet, tubelet * 3, H, W) -> logits (1, classes)."""
    manifest = bundle.manifest
    content = (bundle.path / manifest.program).read_bytes()
    if manifest.engine == "onnxruntime":
        assert manifest.soc is not None
        return onnx_qnn.Program(content, target.load(manifest.target).socs[manifest.soc]).run
    qnn.load_toolchain()
    return qnn.Program(content).run


def measure(bundle: Bundle, clips: int) -> None:
    """Run clip after clip, and write what was found so far."""
    manifest = bundle.manifest
    source, run = zoo.load(manifest.name).module, emulated(bundle)
    got, expected, labels = [], [], []
    for index in range(clips):
        clip, label = dataset.draw("test", index)
        video = manifest.preprocessing.clip(clip)
        got += [run(frames)[0] for frames in fold(video, manifest.model["tubelet_size"])]
        with torch.no_grad():
            expected.append(source(torch.from_numpy(np.ascontiguousarray(video))).numpy()[0])
        labels.append(label)
        row = row_of(np.stack(got), np.stack(expected), np.array(labels))
        key = f"{manifest.target} {manifest.precision} {manifest.soc}"
        rows.put(TABLE, key, {**row, "tools": dict(manifest.tools)}, table)
        print(f"{index + 1}/{clips} {row}", file=sys.stderr)


def row_of(got: Any, expected: Any, labels: Any) -> dict[str, Any]:
    """Of logits (N, classes) and labels (N)."""
    top1 = {
        name: round(float((logits.argmax(1) == labels).mean()), 4)
        for name, logits in (("top1", got), ("source_top1", expected))
    }
    return {"clips": len(labels), **top1, **alike(got, expected)}


def table(found: rows.Rows) -> str:
    """The Markdown."""
    lines = [
        "# egomotion-nano under Qualcomm's x86 emulator of the HTP",
        "",
        "Labelled procedural clips of the split `test`, labels in turn, beside the source model in float32 on the same",
        "clips: its top-1, how often both recognise the same, and the signal-to-noise ratio of the logits.",
        "",
        "| target | precision | SoC | clips | top-1 | source model's | agreement | SNR, dB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, row in sorted(found.items()):
        shares = (f"{100 * row[name]:.1f}%" for name in ("top1", "source_top1", "agreement"))
        lines.append(f"| {' | '.join(key.split())} | {row['clips']} | {' | '.join(shares)} | {row['snr']} |")
    return "\n".join([*lines, "", "Made by `python benchmarks/qnn.py BUNDLE --clips N`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="for android-qnn or onnx-qnn")
    parser.add_argument("--clips", type=int, default=200)
    options = parser.parse_args()
    measure(Bundle.open(options.bundle, any_machine=True), options.clips)


if __name__ == "__main__":
    main()
