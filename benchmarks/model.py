"""Time a whole model three ways in one run, and write the table.

(a) published: the arithmetic as the VideoMambaPro code has it, a Python loop over the tokens, on this repository's
    weights; (b) source: the source model with the native operators; (c) executorch: the bundle of `--target host`.
Each is a process of its own with a fixed number of threads, taken in turns so that a noisy moment hits all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vmp_edge import models
from vmp_edge.models.videomamba import Mixer, VideoMamba

VARIANTS = {"published": "a", "source": "b", "executorch": "c"}
RESULTS = Path(__file__).parent / "results" / "model.md"


def published_mixer(mixer: Mixer, hidden: Tensor) -> Tensor:
    """A shared-weights VideoMambaPro mixer in the published layout (B, D, L), with flips and a loop over L."""
    options = mixer.options
    length = hidden.shape[1]
    x, z = (mixer.in_proj.weight @ hidden.transpose(1, 2)).chunk(2, dim=1)
    conv = mixer.get_submodule("conv1d")
    c = F.silu(F.conv1d(x, conv.weight, conv.bias, padding=options.d_conv - 1, groups=x.shape[1])[..., :length])
    states = options.d_state
    projected = F.linear(c.transpose(1, 2), mixer.get_parameter("x_proj.weight"))
    dt, B, C = (t.transpose(1, 2) for t in projected.split([options.dt_rank, states, states], dim=-1))
    delta = F.softplus(mixer.get_parameter("dt_proj.weight") @ dt + mixer.get_parameter("dt_proj.bias")[:, None])
    u = c if options.scan_input == "conv" else x
    ahead = published_scan(u, delta, -torch.exp(mixer.A_log), B, C, False)
    arguments = (t.flip(-1) for t in (u, delta))
    behind = published_scan(*arguments, -torch.exp(mixer.A_b_log), B.flip(-1), C.flip(-1), options.mask_backward)
    skip = 2 * u * mixer.get_parameter("D")[:, None]
    y = (ahead + behind.flip(-1) + skip) * F.silu(z)
    return mixer.out_proj(y.transpose(1, 2))


def published_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, mask: bool) -> Tensor:
    """Decays and inputs of all tokens at once, then a Python loop: u, delta (B, D, L), B, C (B, N, L) -> (B, D, L)."""
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    inputs = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    h = u[:, :, 0, None].expand(-1, -1, A.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + inputs[:, :, t]
        visible = (h - inputs[:, :, t] if t else torch.zeros_like(h)) if mask else h
        outputs.append(torch.einsum("bdn,bn->bd", visible, C[:, :, t]))
    return torch.stack(outputs, dim=2)


def published_forward(model: VideoMamba, video: Tensor) -> Tensor:
    """The whole model with `published_mixer` in its blocks."""
    tokens = model.embed(video)
    for layer in model.layers:
        tokens = tokens + published_mixer(layer.mixer, layer.norm(tokens))
    return model.head(model.norm_f(tokens)[:, 0])


def make_runner(variant: str, bundle: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from video to logits."""
    if variant == "executorch":
        import vmp_edge

        return vmp_edge.load(bundle, threads=threads).predict_video
    torch.set_num_threads(threads)
    model = source_of(bundle)
    forward = model if variant == "source" else lambda video: published_forward(model, video)

    def run(video: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return forward(torch.from_numpy(video)).numpy()

    return run


def source_of(bundle: Path) -> VideoMamba:
    """The source model that the bundle was built of."""
    return models.load_checkpoint(bundle.parent / "weights.pth")


def worker(variant: str, bundle: Path, threads: int, repeats: int) -> None:
    """Time one variant; print seconds, peak memory and logits as JSON."""
    run = make_runner(variant, bundle, threads)
    options = source_options(bundle)
    shape = (1, 3, options.num_frames, options.image_size, options.image_size)
    video = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    logits = run(video)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(video)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "logits": logits[0].tolist()}))


def source_options(bundle: Path) -> models.ModelOptions:
    """The options of the model in a bundle."""
    from vmp_edge.bundle import Bundle

    return models.ModelOptions.from_dict(dict(Bundle.open(bundle).manifest.model))


def build(folder: Path, name: str, frames: int, size: int) -> Path:
    """Weights of a seeded random model, and the bundle made of them."""
    from vmp_edge.compile.pipeline import Request
    from vmp_edge.compile.pipeline import build as build_bundle

    torch.manual_seed(0)
    model = models.create(name, num_frames=frames, image_size=size)
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, folder / "weights.pth")
    return build_bundle(Request(target="host", checkpoint=folder / "weights.pth", output=folder / "host")).path


def measure(bundle: Path, threads: list[int], rounds: int, repeats: int) -> dict[tuple[str, int], dict[str, list]]:
    """All variants and thread counts in turns."""
    results: dict[tuple[str, int], dict[str, list]] = {}
    for number in range(rounds):
        for count in threads:
            for variant in VARIANTS:
                print(f"round {number + 1}/{rounds}: {variant}, threads {count}", file=sys.stderr, flush=True)
                times = 1 if variant == "published" else repeats
                command = [sys.executable, __file__, "--worker", variant, str(bundle), str(count), str(times)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                answer = json.loads(done.stdout.splitlines()[-1])
                entry = results.setdefault((variant, count), {"seconds": [], "peak": [], "logits": []})
                entry["seconds"] += answer["seconds"]
                entry["peak"].append(answer["peak"])
                entry["logits"] = answer["logits"]
    return results


def table(results: dict[tuple[str, int], dict[str, list]]) -> list[str]:
    """Markdown rows: time, ratios within this run, memory, difference from the source model."""
    rows = [
        "| | variant | threads | ms a clip | speed over (a) | speed over (b) | peak MB | largest difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (variant, count), entry in sorted(results.items(), key=lambda item: (item[0][1], VARIANTS[item[0][0]])):
        middle = {name: statistics.median(results[name, count]["seconds"]) for name in VARIANTS}
        difference = np.abs(np.subtract(entry["logits"], results["source", count]["logits"])).max()
        rows.append(
            f"| ({VARIANTS[variant]}) | {variant} | {count} | {middle[variant] * 1e3:.0f} "
            f"| {middle['published'] / middle[variant]:.1f} | {middle['source'] / middle[variant]:.2f} "
            f"| {max(entry['peak']):.0f} | {difference:.1e} |"
        )
    return rows


def cpu_name() -> str:
    """The CPU as the system names it, and its vector extensions that matter here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    return f"{name}{', AVX-512' if ' avx512f ' in flags else ''}, {platform.system()}"


def main() -> None:
    """Parse the command line, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="videomambapro-tiny", help="a shared-weights preset (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="frames of the clip (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each variant gets (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed clips a turn, (a) one (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the table (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = build(Path(folder), args.model, args.frames, args.image_size)
        results = measure(bundle, args.threads, args.rounds, args.repeats)
    command = "python benchmarks/model.py " + " ".join(sys.argv[1:])
    lines = [
        "# Whole model",
        "",
        f"{args.model}, {args.frames} frames of {args.image_size}x{args.image_size}, batch 1, float32. Medians of one "
        "run; ratios within it.",
        "Peak MB is the process's, with Python and all that the variant imports.",
        "",
        *table(results),
        "",
        f"{cpu_name()}; PyTorch {torch.__version__}. Made by `{command.strip()}`.",
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
