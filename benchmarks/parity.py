"""Measure how far each target's bundle is from its source model, for all targets that can be built here.

Writes benchmarks/results/parity.md and parity.yaml.

A row whose toolchain is not installed keeps its last results, because the toolchains do not all fit one environment.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import rows
from scenes import scenes
from scenes import write as write_scenes

from vmp_edge.bundle.manifest import Manifest
from vmp_edge.bundle.reading import Bundle
from vmp_edge.compile import target
from vmp_edge.compile.pipeline import DEFAULT_MODEL, Request, Stages, build
from vmp_edge.compile.precision import Quantiser, quantised_by
from vmp_edge.errors import MissingDependencyError, VmpError
from vmp_edge.models import PRESETS

CALIBRATION = 4  # scenes
TABLE = Path(__file__).parent / "results" / "parity.yaml"
QUANTISED = quantised_by(Quantiser.RECIPE)
# Target, precision, model, number of clips of each kind; 0 only builds, if the emulator would take too long.
ROWS = (
    *(("onnx", precision, "egomotion-nano", 30) for precision in ("fp32", "fp16", *QUANTISED)),
    *(("onnx", precision, "videomambapro-tiny", 1) for precision in ("fp32", "fp16", *QUANTISED)),
    ("android-cpu", "fp32", "egomotion-nano", 3),
    ("android-vulkan", "fp32", "egomotion-nano", 30),
    ("android-qnn", "fp16", "egomotion-nano", 2),  # before onnx-qnn, whose libraries it shares in one process
    ("android-qnn", "16a8w", "egomotion-nano", 1),
    ("android-qnn", "fp16", "videomambapro-tiny", 0),  # twelve CPU minutes
    ("onnx-qnn", "fp16", "egomotion-nano", 2),
    ("onnx-qnn", "16a8w", "egomotion-nano", 1),
    ("apple-ane", "fp16", "egomotion-nano", 30),
    ("apple-ane", "fp16", "videomambapro-tiny", 1),
    ("arm64-executorch", "fp32", "egomotion-nano", 3),
    *(("arm64-executorch", precision, "egomotion-nano", 2) for precision in QUANTISED),
    ("arm-ethos-u85", "16a8w", "egomotion-nano", 1),
    ("arm-vgf", "fp32", "egomotion-nano", 1),
    *(("openvino", precision, "egomotion-nano", 30) for precision in ("fp32", *QUANTISED)),
    ("openvino", "fp32", "videomambapro-tiny", 1),
)
# Targets that were requested but do not exist, with the reason.
MISSING = {
    "rockchip-rk3588": "left out: its toolkit does not install beside PyTorch 2.13 (docs/targets/rockchip.md)",
}


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the child processes that have ended."""
    return sum(os.times()[:4])


class StageTimer(Stages):
    """Keep the CPU seconds of a build's stages, by the first word of the stage's description."""

    seconds: ClassVar[dict[str, float]] = {}

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        started = cpu_seconds()
        with super().__call__(what):
            yield
        self.seconds[what.split()[0]] = cpu_seconds() - started


def measure(name: str, precision: str, model: str, clips: int) -> dict[str, Any]:
    """Build a bundle and return its row."""
    started = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        calibration: dict[str, Any] = {}
        if precision == "int8" and model != DEFAULT_MODEL:  # for the default model the build draws clips
            options = PRESETS[model]
            clip_list = write_scenes(scenes(options.num_frames, options.image_size, CALIBRATION), Path(folder))
            calibration = {"calibrate": clip_list, "calibration_clips": CALIBRATION}
        output = Path(folder) / "bundle"
        request = Request(name, model=model, precision=precision, output=output, parity_clips=clips, **calibration)
        manifest = build(request, stages=StageTimer).manifest
    return row_of(manifest, StageTimer.seconds["lower"], cpu_seconds() - started)


def row_of(manifest: Manifest, compiling: float | None = None, seconds: float | None = None) -> dict[str, Any]:
    """Return a build's row.

    Args:
        manifest: The bundle's manifest.
        compiling: CPU seconds from the exported program to the target's program, if they are known.
        seconds: CPU seconds of the whole build, if they are known.
    """
    parity = manifest.parity
    recognised = manifest.accuracy.get("measured", parity)  # calibrated precisions are measured on held-out clips
    return {
        "snr": parity.get("snr"),
        "agreement": recognised.get("agreement"),
        "clips": recognised.get("clips"),
        "compiling": compiling and round(compiling),
        "seconds": seconds and round(seconds),
        "megabytes": round(sum(entry.size for entry in manifest.files.values()) / 1e6, 2),
        "compared": parity.get("emulator") or parity.get("not_run") or "this machine",
        "tools": dict(manifest.tools),
    }


def table(results: rows.Rows) -> str:
    """Return the table in Markdown."""
    lines = [
        "# How far each target is from the source model",
        "",
        "Signal-to-noise ratio of the logits and agreement of top-1, between the bundle and the source model in",
        "float32, on random clips and as many real-looking clips. For quantised models the ratio is measured on clips",
        "of the calibration, and the agreement on held-out clips of the task. Compiling takes the exported program to",
        "the target's program; the whole build includes calibration and comparison. Both are in CPU seconds.",
        "videomambapro-tiny has random weights. On arm64-executorch, the agreement in int8 is that of the quantised",
        "program in PyTorch, and the ratio that of the bundle under qemu.",
        "",
        "| target | model | precision | SNR, dB | top-1 agreement | clips | compiling, CPU s | whole build, CPU s | MB "
        "| compared by | verified |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in sorted(results.items()):
        name, precision, model = key.split()
        verified = "; ".join(f"{where}: {what}" for where, what in target.load(name).verified.items())
        if "failed" in row:
            lines.append(f"| {name} | {model} | {precision} | | | | | | | failed: {row['failed']} | {verified} |")
            continue
        agreement = None if row["agreement"] is None else f"{100 * row['agreement']:.1f}%"
        seconds = (row.get("compiling"), row["seconds"])
        values = (row["snr"], agreement, row["clips"], *seconds, row["megabytes"], row["compared"])
        cells = ["" if value is None else str(value) for value in values]
        lines.append(f"| {name} | {model} | {precision} | {' | '.join(cells)} | {verified} |")
    lines += ["", "Missing:", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in MISSING.items()]
    keys = (f"{name} {precision} {model}" for name, precision, model, _ in ROWS)
    lines += [f"- `{key}`: not measured yet" for key in keys if key not in results]
    lines += ["", "Made by `make parity`; `parity.yaml` has the versions of the tools.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="TARGET", help="leave the rows of the other targets as they are")
    parser.add_argument("--model", help="leave the rows of the other models as they are")
    parser.add_argument("--precision", help="leave the rows of the other precisions as they are")
    parser.add_argument(
        "--built", type=Path, metavar="BUNDLE", help="write the row of an existing bundle, without building"
    )
    options = parser.parse_args()
    if options.built:
        manifest = Bundle.open(options.built, any_machine=True).manifest
        key = f"{manifest.target} {manifest.precision} {manifest.name}"
        rows.put(TABLE, key, row_of(manifest), table)
        return
    for name, precision, model, clips in ROWS:
        filters = zip((options.only, options.model, options.precision), (name, model, precision), strict=True)
        if any(option not in (None, value) for option, value in filters):
            continue
        key = f"{name} {precision} {model}"
        print(key, file=sys.stderr)
        try:
            row = measure(name, precision, model, clips)
        except MissingDependencyError as error:
            print(f"this row keeps its last results: {error}", file=sys.stderr)
            continue
        except VmpError as error:
            row = {"failed": str(error)}
        rows.put(TABLE, key, row, table)


if __name__ == "__main__":
    main()
