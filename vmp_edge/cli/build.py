"""``vmp-edge build``: from a model to a bundle."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..machine import ANY_MACHINE, host_machine, missing_cpu_features
from .output import add_json_option, print_json, progress_bar

if TYPE_CHECKING:
    from ..bundle.reading import Bundle

EPILOG = """examples:
  vmp-edge build --target host                                   our own egomotion-nano
  vmp-edge build --target host --model videomambapro-tiny        random weights, for timing
  vmp-edge build --target jetson-orin --jetpack 7 --device nx    for a Jetson, on a machine without a GPU
  vmp-edge build --target host --precision int8 --max-drop 0.5   calibrated, measured, with a report beside it
  vmp-edge build --target host --checkpoint k400.pth --family videomambapro --labels k400.txt --frames 16
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "build",
        help="lower a model to a bundle for a target",
        description="Lower a model for a target, run the result beside the source model, and write it as a bundle.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", required=True, help="a device kind; `vmp-edge targets` lists them")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", metavar="PRESET", help="egomotion-nano (default), videomamba-tiny, ...")
    model.add_argument("--checkpoint", type=Path, metavar="FILE", help="a published .pth file")
    parser.add_argument(
        "--family",
        default="videomambapro",
        choices=["videomamba", "videomambapro"],
        help="of the checkpoint (default: videomambapro)",
    )
    parser.add_argument("--frames", type=int, metavar="T", help="frames of a clip (default: the model's)")
    parser.add_argument("--image-size", type=int, metavar="S", help="pixels of a side (default: the model's)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="a text file with one label a line")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the bundle's folder (default: build/TARGET)")
    parser.add_argument("--engine", help="what executes the bundle (default: the target's)")
    parser.add_argument("--precision", help="fp32, ... (default: the target's first)")
    parser.add_argument("--device", help="of a target with GPUs, what to tune for: agx, nx, ... (default: its first)")
    parser.add_argument("--soc", help="of a Qualcomm target, the chip: SM8650, SM8750 (default: the target's first)")
    parser.add_argument("--jetpack", help="of a Jetson target, the system on the device: 6 or 7")
    parser.add_argument(
        "--parity-clips",
        type=int,
        metavar="N",
        help="clips of each kind on which the bundle is compared with its source model (default: 3, emulated 1); "
        "0 leaves it out, for what an emulator would take too long for",
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="the bundle gives features, too, which vmp-edge enroll needs",
    )
    parser.add_argument(
        "--per-frame",
        action="store_true",
        help="embed each frame of a stream once, not once a window; the same results (docs/streaming.md)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads on the device (default: all cores)")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="engine tvm: time register tiles on this machine first; later builds for the target use what was found",
    )
    parser.add_argument(
        "--tuning-log", type=Path, metavar="FILE", help="the tuning's log (default: the target's own, if it has one)"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="WHAT",
        help="build cheaper variants into the bundle too: frames=4,8 size=48,64 depth=2,4 (docs/adaptive.md)",
    )
    _add_quantisation_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def _add_quantisation_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("int8", "beside the bundle, OUTPUT.report.html tells what was measured")
    group.add_argument(
        "--calibrate",
        type=Path,
        metavar="CLIPS",
        help="videos to calibrate on: a folder of class folders, a .csv, or a .txt with a path in each line "
        "(egomotion-nano draws its own)",
    )
    group.add_argument("--calibration-clips", type=int, metavar="N", help="clips to calibrate on (default: 64)")
    group.add_argument(
        "--finetune",
        type=int,
        metavar="STEPS",
        help="let the weights learn to be quantised from the float model, on the clips of the calibration",
    )
    group.add_argument(
        "--evaluate",
        type=Path,
        metavar="CLIPS",
        help="labelled videos on which float and int8 are measured (egomotion-nano draws its own)",
    )
    group.add_argument(
        "--max-drop", type=float, metavar="POINTS", help="fail if top-1 falls by more than this many points there"
    )


def run(args: argparse.Namespace) -> int:
    """Build, and say what was built."""
    from vmp_edge.compile.pipeline import Request, build

    request = Request(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Request)})
    bundle = build(request, progress_bar)
    _say(bundle)
    if args.json:
        print_json({"bundle": str(bundle.path), **bundle.manifest.to_dict()})
    return 0


def _say(bundle: Bundle) -> None:
    from vmp_edge.compile.target import load

    manifest = bundle.manifest
    megabytes = sum(entry.size for entry in manifest.files.values()) / 1e6
    if gpu := manifest.gpu:
        codes = ", ".join(f"sm_{sm}" for sm in gpu["architectures"])
        print(f"machine code for {codes} by CUDA {gpu['cuda']}, tuned for {gpu['device']}", file=sys.stderr)
    print(
        f"{bundle.path}: {manifest.name} for {manifest.target}, {manifest.engine} {manifest.precision}, "
        f"{megabytes:.1f} MB, {_parity(manifest.parity)}",
        file=sys.stderr,
    )
    if measured := manifest.accuracy.get("measured"):
        print(_accuracy(measured), file=sys.stderr)
    for name, facts in manifest.variants.items():
        top1 = "not measured"
        if "top1" in facts:
            top1 = f"top-1 {100 * facts['top1']:.1f}%, the model {100 * facts['model_top1']:.1f}% of {facts['clips']}"
        print(f"variant {name}: {top1}", file=sys.stderr)
    here = manifest.machine in (ANY_MACHINE, host_machine()) and not missing_cpu_features(manifest.cpu_features)
    where = "" if here else f"on a {manifest.target} machine, "
    command = f"vmp-edge run {bundle.path} --source 0"
    if delegate := load(manifest.target).delegate:
        command = f"{manifest.program} with the runtime of {manifest.engine} and its delegate {delegate}"
    elif manifest.machine == "android":
        command = f"{manifest.program} with ExecuTorch's runtime and vmp's operators (docs/targets/android-cpu.md)"
    print(f"run it: {where}{command}", file=sys.stderr)


def _parity(parity: Mapping[str, Any]) -> str:
    if "not_run" in parity:
        return f"NOT compared with the source model: {parity['not_run']}"
    where = f" (under {parity['emulator']})" if "emulator" in parity else ""
    if "features" in parity:
        where = f", cosine of its features {parity['features']['cosine']:.4f}{where}"
    if "cosine" in parity:
        return f"cosine of its logits with the source model's {parity['cosine']:.4f}{where}"
    return f"at most {parity['max_difference']:.1e} from the source model{where}"


def _accuracy(measured: Mapping[str, Any]) -> str:
    top1 = (
        f"top-1 {100 * measured['top1']:.1f}%, in float {100 * measured['float_top1']:.1f}%, "
        if "top1" in measured
        else ""
    )
    return f"{top1}agreement {100 * measured['agreement']:.1f}% on {measured['clips']} of {measured['data']}"
