"""How far each target's bundle is from its source model: builds what can be built here.

Writes benchmarks/results/parity.md and parity.yaml.

A row whose toolchain is not installed keeps what was measured last: the toolchains do not all fit one environment.
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
# Target, precision, model, clips of each kind; 0 only builds, where the emulator would take too long.
ROWS = (
    *(("onnx", precision, "egomotion-nano", 30) for precision in ("fp32", "fp16", *QUANTISED)),
    *(("onnx", precision, "videomambapro-tiny", 1) for precision in ("fp32", "fp16", *QUANTISED)),
    ("android-cpu", "fp32", "egomotion-nano", 3),
    ("android-vulkan", "fp32", "egomotion-nano", 30),
    ("android-qnn", "fp16", "egomotion-nano", 2),  # before onnx-qnn, which shares its libraries in one process
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
# Of the targets that were asked for, those that are not there.
MISSING = {
    "rockchip-rk3588": "left out: its toolkit does not install beside PyTorch 2.13 (docs/targets/rockchip.md)",
}


def used() -> float:
    """CPU seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


class Timed(Stages):
    """Keeps the CPU seconds of the stages, by the first word of what they do."""

    used: ClassVar[dict[str, float]] = {}

    @contextmanager
    def __call__(self, what: str, bars: bool = False) -> Iterator[None]:
        started = used()
        with super().__call__(what, bars):
            yield
        self.used[what.split()[0]] = used() - started


def measure(name: str, precision: str, model: str, clips: int) -> dict[str, Any]:
    """Build a bundle, and say what its manifest says."""
    started = used()
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {}
        if precision == "int8" and model != DEFAULT_MODEL:  # for which clips would be drawn
            options = PRESETS[model]
            given = {
                "calibrate": write_scenes(scenes(options.num_frames, options.image_size, CALIBRATION), Path(folder))
            }
            given["calibration_clips"] = CALIBRATION
        output = Path(folder) / "bundle"
        request = Request(name, model=model, precision=precision, output=output, parity_clips=clips, **given)
        manifest = build(request, stages=Timed).manifest
    return row_of(manifest, Timed.used["lower"], used() - started)


def row_of(manifest: Manifest, compiling: float | None = None, seconds: float | None = None) -> dict[str, Any]:
    """What a manifest says of a build.

    Args:
        manifest: of the bundle.
        compiling: CPU seconds from the exported program to the target's, if they are known.
        seconds: of the whole build.
    """
    parity = manifest.parity
    recognised = manifest.accuracy.get("measured", parity)  # of precisions that are calibrated: held-out clips
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


def table(found: rows.Rows) -> str:
    """The Markdown."""
    lines = [
        "# How far each target is from the source model",
        "",
        "Signal-to-noise ratio of the logits and agreement of top-1: the bundle beside the source model in float32, on",
        "as many random clips as real-looking ones. Of quantised models the ratio is that of clips of the calibration,",
        "the agreement that of held-out clips of the task. Compiling is from the exported program to the target's, in",
        "CPU seconds; those of the whole build have calibration and comparison in them. videomambapro-tiny has",
        "random weights. On arm64-executorch the agreement in int8 is that of the quantised program in PyTorch, the",
        "ratio that of the bundle under qemu.",
        "",
        "| target | model | precision | SNR, dB | top-1 agreement | clips | compiling, CPU s | whole build, CPU s | MB "
        "| compared by | verified |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in sorted(found.items()):
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
    lines += ["", "Not there:", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in MISSING.items()]
    keys = (f"{name} {precision} {model}" for name, precision, model, _ in ROWS)
    lines += [f"- `{key}`: not measured yet" for key in keys if key not in found]
    lines += ["", "Made by `make parity`; `parity.yaml` has the versions of the tools.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="TARGET", help="leave the rows of the other targets as they are")
    parser.add_argument("--model", help="leave the rows of the other models as they are")
    parser.add_argument("--precision", help="leave the rows of the other precisions as they are")
    parser.add_argument("--built", type=Path, metavar="BUNDLE", help="write the row of a bundle that was built before")
    options = parser.parse_args()
    if options.built:
        manifest = Bundle.open(options.built, any_machine=True).manifest
        key = f"{manifest.target} {manifest.precision} {manifest.name}"
        rows.put(TABLE, key, row_of(manifest), table)
        return
    for name, precision, model, clips in ROWS:
        asked = zip((options.only, options.model, options.precision), (name, model, precision), strict=True)
        if any(one not in (None, other) for one, other in asked):
            continue
        key = f"{name} {precision} {model}"
        print(key, file=sys.stderr)
        try:
            row = measure(name, precision, model, clips)
        except MissingDependencyError as error:
            print(f"left as it was: {error}", file=sys.stderr)
            continue
        except VmpError as error:
            row = {"failed": str(error)}
        rows.put(TABLE, key, row, table)


if __name__ == "__main__":
    main()
