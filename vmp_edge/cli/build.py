"""``vmp-edge build``: from a model to a bundle."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..formatting import number, percent, size
from ..machine import ANY_MACHINE, host_machine, missing_cpu_features
from ..preprocessing import RESIZE_MODES
from .output import add_json_option, print_json, progress_bar

if TYPE_CHECKING:
    from ..bundle.reading import Bundle

EPILOG = """examples:
  vmp-edge build --target host                                   our own egomotion-nano
  vmp-edge build --target host --model videomambapro-tiny        random weights, for timing
  vmp-edge build --target jetson-orin --jetpack 7 --device nx    for a Jetson, on a machine without a GPU
  vmp-edge build --target host --precision int8 --max-drop 0.5   calibrated, measured, with a report beside it
  vmp-edge build --target host --checkpoint mm.pth --features    video and text: classes by their names
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
    parser.add_argument("--output", type=Path, metavar="DIR", help="the bundle's folder (default: build/TARGET)")
    parser.add_argument("--engine", help="what executes the bundle (default: the target's)")
    parser.add_argument("--precision", help="fp32, int8, ... (default: the target's first)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads on the device (default: all that it may use)"
    )
    parser.add_argument(
        "--parity-clips",
        type=int,
        metavar="N",
        help="compare the bundle with its source model on N clips of each kind (default: 3; 1 under an emulator); "
        "0 leaves the comparison out, for models that would take an emulator too long",
    )
    _add_model_options(parser.add_argument_group("model"))
    _add_preparation_options(
        parser.add_argument_group(
            "how the model was trained", "Published models and egomotion-nano bring this with them."
        )
    )
    _add_bundle_options(parser.add_argument_group("what the bundle can do"))
    _add_device_options(parser.add_argument_group("device"))
    _add_quantisation_options(
        parser.add_argument_group("int8", "A report of what was measured is written to OUTPUT.report.html.")
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def _add_model_options(group: Any) -> None:
    model = group.add_mutually_exclusive_group()
    model.add_argument("--model", metavar="NAME", help="a name that `vmp-edge models` lists (default: egomotion-nano)")
    model.add_argument("--checkpoint", metavar="FILE", help="a checkpoint's file, or hf://OWNER/NAME/FILE")
    group.add_argument(
        "--checkpoint-key",
        metavar="KEY",
        help="which model to take from a checkpoint with several: model_ema, ... (default: the trained weights)",
    )
    group.add_argument(
        "--family",
        choices=["videomamba", "videomambapro"],
        help="the checkpoint's family (default: found out from the file, and said)",
    )
    group.add_argument(
        "--readout",
        choices=["class_token", "mean", "pooled_frames"],
        help="what the checkpoint's head reads (default: the class token, or pooled_frames for a video-text model; a "
        "model with one direction needs the mean)",
    )
    group.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="keep the first N of the checkpoint's classes: 400 of a head for Kinetics-710 are Kinetics-400's; 0 "
        "leaves the head out",
    )
    group.add_argument("--frames", type=int, metavar="T", help="frames of a clip (default: the model's)")
    group.add_argument("--image-size", type=int, metavar="S", help="pixels of a frame's side (default: the model's)")
    group.add_argument(
        "--labels", type=Path, metavar="FILE", help="a text file with one label on each line, or k400, ssv2 or in1k"
    )


def _add_preparation_options(group: Any) -> None:
    spacing = group.add_mutually_exclusive_group()
    spacing.add_argument(
        "--span",
        type=float,
        metavar="S",
        help="the frames of a clip came from S seconds, one from each of T equal parts (Kinetics: 10)",
    )
    spacing.add_argument("--frame-rate", type=float, metavar="F", help="a clip had F frames per second")
    group.add_argument(
        "--resize", choices=RESIZE_MODES, help="how frames become squares (default: crop, as in the published code)"
    )
    colours = ("RED", "GREEN", "BLUE")
    group.add_argument(
        "--mean", type=float, nargs=3, metavar=colours, help="mean of the channels, 0 to 1 (default: ImageNet's)"
    )
    group.add_argument(
        "--std", type=float, nargs=3, metavar=colours, help="standard deviation of the channels (default: ImageNet's)"
    )


def _add_bundle_options(group: Any) -> None:
    group.add_argument(
        "--features",
        action="store_true",
        help="also give features, which vmp-edge enroll and embed need; a checkpoint without a head gives them alone",
    )
    group.add_argument(
        "--per-frame",
        action="store_true",
        help="embed each frame of a stream once instead of once in each window; the results are the same "
        "(docs/streaming.md)",
    )
    group.add_argument(
        "--variants",
        nargs="+",
        metavar="SIZES",
        help="build cheaper variants into the bundle, too: frames=4,8 size=48,64 depth=2,4 (docs/adaptive.md)",
    )


def _add_device_options(group: Any) -> None:
    group.add_argument("--device", help="target with GPUs: the one to tune for, agx, nx, ... (default: the first)")
    group.add_argument("--jetpack", help="Jetson target: the JetPack on the device, 6 or 7")
    group.add_argument("--soc", help="Qualcomm target: the chip, SM8650 or SM8750 (default: the first)")
    group.add_argument(
        "--tune",
        action="store_true",
        help="engine tvm: time register tiles on this machine first; later builds for the target use the best ones",
    )
    group.add_argument(
        "--tuning-log", type=Path, metavar="FILE", help="engine tvm: the tuning log (default: the target's own, if any)"
    )


def _add_quantisation_options(group: Any) -> None:
    group.add_argument(
        "--calibrate",
        type=Path,
        metavar="CLIPS",
        help="videos to calibrate on: a folder of class folders, a .csv, or a .txt with one path on each line "
        "(egomotion-nano draws its own)",
    )
    group.add_argument("--calibration-clips", type=int, metavar="N", help="clips to calibrate on (default: 64)")
    group.add_argument(
        "--finetune",
        type=int,
        metavar="STEPS",
        help="let the weights learn the rounding from the float model, on the calibration clips",
    )
    group.add_argument(
        "--evaluate",
        type=Path,
        metavar="CLIPS",
        help="labelled videos to measure float and int8 on (egomotion-nano draws its own)",
    )
    group.add_argument(
        "--max-drop", type=float, metavar="POINTS", help="fail if top-1 falls by more than this many points there"
    )


def run(args: argparse.Namespace) -> int:
    """Build the bundle, and report what it is."""
    from vmp_edge.compile.pipeline import Request, build

    request = Request(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Request)})
    bundle = build(request, progress_bar)
    _report(bundle)
    if args.json:
        print_json({"bundle": str(bundle.path), **bundle.manifest.to_dict()})
    return 0


def _report(bundle: Bundle) -> None:
    """Say on standard error what was built, how it was verified, and how to run it."""
    from vmp_edge.compile.target import load

    manifest = bundle.manifest
    bundle_size = size(sum(entry.size for entry in manifest.files.values()))
    if gpu := manifest.gpu:
        codes = ", ".join(f"sm_{sm}" for sm in gpu["architectures"])
        print(f"machine code for {codes} by CUDA {gpu['cuda']}, tuned for {gpu['device']}", file=sys.stderr)
    print(
        f"{bundle.path}: {manifest.name} for {manifest.target}, {manifest.engine} {manifest.precision}, "
        f"{bundle_size}, {_parity(manifest.parity, 'logits' if manifest.labels else 'features')}",
        file=sys.stderr,
    )
    if measured := manifest.accuracy.get("measured"):
        print(_accuracy(measured), file=sys.stderr)
    for name, facts in manifest.variants.items():
        top1 = "not measured"
        if "top1" in facts:
            top1 = f"top-1 {percent(facts['top1'])}, the model {percent(facts['model_top1'])} of {facts['clips']}"
        print(f"variant {name}: {top1}", file=sys.stderr)
    here = manifest.machine in (ANY_MACHINE, host_machine()) and not missing_cpu_features(manifest.cpu_features)
    where = "" if here else f"on a {manifest.target} machine, "
    command = f"vmp-edge run {bundle.path} --source 0"
    if delegate := load(manifest.target).delegate:
        command = f"{manifest.program} with the runtime of {manifest.engine} and its delegate {delegate}"
    elif manifest.machine == "android":
        command = f"{manifest.program} with ExecuTorch's runtime and vmp's operators (docs/targets/android-cpu.md)"
    if manifest.labels:
        print(f"run it: {where}{command}", file=sys.stderr)
        return
    by = '--text "..." --checkpoint FILE' if manifest.model.get("readout") == "pooled_frames" else "--name ... --source"
    print(f"give it classes: vmp-edge enroll {bundle.path} {by}", file=sys.stderr)
    gallery = " --gallery FILE" if command.startswith("vmp-edge") else ""
    print(f"then run it: {where}{command}{gallery}", file=sys.stderr)


def _parity(parity: Mapping[str, Any], outputs: str) -> str:
    if "not_run" in parity:
        return f"NOT compared with the source model: {parity['not_run']}"
    where = f" (under {parity['emulator']})" if "emulator" in parity else ""
    if "features" in parity and outputs != "features":
        where = f", cosine of its features {parity['features']['cosine']:.4f}{where}"
    if "cosine" in parity:
        return f"cosine of its {outputs} with the source model's {parity['cosine']:.4f}{where}"
    return f"at most {number(parity['max_difference'], 2)} from the source model{where}"


def _accuracy(measured: Mapping[str, Any]) -> str:
    top1 = (
        f"top-1 {percent(measured['top1'])}, in float {percent(measured['float_top1'])}, " if "top1" in measured else ""
    )
    return f"{top1}agreement {percent(measured['agreement'])} on {measured['clips']} of {measured['data']}"
