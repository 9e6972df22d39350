"""`vmp-edge bench`: measures how fast a bundle is on this machine."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..contention import OtherLoad, doubt
from ..errors import UsageError
from ..formatting import milliseconds, number, quantity, size
from ..machine import cpu_model, usable_cpu_count
from ..recognizer import Recognizer, load
from ..stream.stream import Stream
from .options import add_hop_option, add_threads_option
from .output import add_json_option, print_json, progress, say

CAMERA = (480, 640, 3)  # shape of the frames that are pushed through the stream: the usual webcam's


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure a bundle's latency, throughput, start-up time and memory",
        description="Measure a bundle here: the engine alone, and the whole stream from 640x480 frames to results.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--windows",
        type=int,
        default=100,
        help="number of windows to time, once for the engine and once for the stream (default: 100)",
    )
    parser.add_argument(
        "--warmup", type=int, default=10, help="number of windows to run before the timing (default: 10)"
    )
    add_hop_option(parser)
    add_threads_option(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the bundle, and print the result."""
    if args.windows < 1 or args.warmup < 0:
        raise UsageError("--windows must be at least 1 and --warmup at least 0")
    start = time.perf_counter()
    with progress("loading"):
        recognizer = load(args.bundle, args.threads)
    with recognizer:
        recognizer.predict_video(np.zeros((1, 3, recognizer.frames, *2 * (recognizer.image_size,)), np.float32))
        startup = time.perf_counter() - start
        others = OtherLoad()
        with progress(f"engine: {args.warmup} + {args.windows} windows"):
            engine = time_engine(recognizer, args.warmup, args.windows)
        with progress(f"stream: {args.windows} windows, hop {args.hop}"):
            stream, frames_per_second = time_stream(recognizer, args.hop, args.windows)
    load_share = others.share()
    result = {
        "bundle": str(args.bundle),
        "threads": args.threads if args.threads is not None else recognizer.manifest.threads,
        "cpu": cpu_model(),
        "cpus": usable_cpu_count(),
        "other_load": None if load_share is None else round(load_share, 3),
        "startup_s": round(startup, 4),
        "engine_ms": _milliseconds(engine),
        "stream_ms": _milliseconds(stream),
        "hop": args.hop,
        "frames_per_second": round(frames_per_second, 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
    }
    _print(result)
    if args.json:
        print_json(result)
    return 0


def time_engine(recognizer: Recognizer, warmup: int, windows: int) -> list[float]:
    """Time the engine alone on random video.

    Args:
        recognizer: The loaded bundle.
        warmup: Number of runs that are not timed, before the others.
        windows: Number of runs that are timed.

    Returns:
        Seconds of each timed run.
    """
    shape = (1, 3, recognizer.frames, recognizer.image_size, recognizer.image_size)
    video = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    for _ in range(warmup):
        recognizer.predict_video(video)
    return [_timed(lambda: recognizer.predict_video(video)) for _ in range(windows)]


def time_stream(recognizer: Recognizer, hop: int, windows: int) -> tuple[list[float], float]:
    """Push camera frames through a stream until it has given `windows` results.

    Args:
        recognizer: The loaded bundle.
        hop: Number of frames from one window to the next.
        windows: Number of results to time.

    Returns:
        Seconds of each push that gave a result (the frame's preparation, gathering, engine and smoothing together), and
        the number of frames per second that the stream can take.
    """
    stream = Stream(recognizer, hop=hop, stride=1)
    frames = np.random.default_rng(0).integers(0, 256, (4, *CAMERA), np.uint8)
    pushed = 0
    while stream.push(frames[pushed % 4]) is None:  # until the ring is full
        pushed += 1
    latencies: list[float] = []
    pushed, start = 0, time.perf_counter()
    while len(latencies) < windows:
        before = time.perf_counter()
        if stream.push(frames[pushed % 4]) is not None:
            latencies.append(time.perf_counter() - before)
        pushed += 1
    return latencies, pushed / (time.perf_counter() - start)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    names = {"p25": 25, "p50": 50, "p75": 75, "p95": 95}
    values = np.percentile(seconds, list(names.values())) * 1e3
    return {
        **{name: round(float(value), 3) for name, value in zip(names, values, strict=True)},
        "mean": round(float(np.mean(seconds)) * 1e3, 3),
    }


def _print(result: dict[str, Any]) -> None:
    threads = "the engine's number of threads" if result["threads"] is None else quantity(result["threads"], "thread")
    rows = [
        ("machine", f"{result['cpu']}, {quantity(result['cpus'], 'usable CPU')}; {threads}"),
        ("start-up", f"{milliseconds(1e3 * result['startup_s'])} to the first result, the engine's import included"),
        ("engine", _spread(result["engine_ms"])),
        ("stream", f"{_spread(result['stream_ms'])}, from a 640x480 frame to a result"),
        ("throughput", f"{number(result['frames_per_second'])} frames per second at a hop of {result['hop']}"),
        ("peak memory", f"{size(1e6 * result['peak_memory_mb'])} of the whole process"),
    ]
    for key, value in rows:
        say(f"{key:>12}  {value}")
    if (text := doubt(result["other_load"])) is not None:
        say(f"{'':>12}  {text}")


def _spread(values: dict[str, float]) -> str:
    middle, low, high, late = (milliseconds(values[name]) for name in ("p50", "p25", "p75", "p95"))
    return f"{middle} median, half of the runs {low} to {high}, {late} p95"
