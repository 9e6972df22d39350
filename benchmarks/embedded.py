"""The C library beside Python on the host bundle of egomotion-nano: from a pushed frame to a result.

python benchmarks/embedded.py
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vmp_edge.cli import main as vmp_edge
from vmp_edge.recognizer import load
from vmp_edge.runtimes.building import cmake_build
from vmp_edge.runtimes.executorch.library import executorch_folder
from vmp_edge.stream.stream import Stream

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "embedded.md"
WIDTH, HEIGHT, RATE = 640, 480, 30.0
FORMATS = {"bgr": None, "nv12": cv2.COLOR_BGR2YUV_I420, "yuyv": cv2.COLOR_BGR2YUV_YUY2, "grey": cv2.COLOR_BGR2GRAY}

Frames = npt.NDArray[np.uint8]
Times = tuple[float, float]  # milliseconds that a frame takes, and a window; medians


def make_frames(count: int) -> Frames:
    """A camera that moves over a coarse pattern: uint8 (count, H, W, 3) BGR."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 256, (40, 60, 3), np.uint8), (3 * WIDTH, 2 * HEIGHT))
    places = [(i * 4 % (2 * WIDTH), i * 2 % HEIGHT) for i in range(count)]
    return np.stack([scene[y : y + HEIGHT, x : x + WIDTH] for x, y in places])


def as_format(frame: Frames, name: str) -> bytes:
    """A BGR frame in one of the C example's formats."""
    code = FORMATS[name]
    converted = frame if code is None else cv2.cvtColor(frame, code)
    if name == "nv12":  # planes of U and V, one after the other, become pairs
        luma, u, v = np.split(converted.reshape(-1), [WIDTH * HEIGHT, WIDTH * HEIGHT * 5 // 4])
        return luma.tobytes() + np.stack([u, v], 1).tobytes()
    return converted.tobytes()


def time_c(example: Path, bundle: Path, data: bytes, name: str) -> Times:
    """By the C example, which prints the library's own statistics."""
    done = subprocess.run(
        [example, bundle, name, str(WIDTH), str(HEIGHT), str(RATE)],
        input=data,
        capture_output=True,
        check=True,
        env={**os.environ, "VMP_EDGE_LIBRARIES": str(executorch_folder() / "lib")},
    )
    window, frame = re.findall(r"([\d.]+) ms a", done.stderr.decode().splitlines()[-1])
    return float(frame), float(window)


def time_python(bundle: Path, frames: Frames) -> Times:
    """By `Stream.push`: what a frame takes without a window, and the latency that its results tell."""
    pushes, windows = [], []
    with load(bundle, threads=1) as recognizer:
        stream = Stream(recognizer, bgr=True)
        for index, frame in enumerate(frames):
            start = time.perf_counter()
            found = stream.push(frame, index / RATE)
            if found is None:
                pushes.append(time.perf_counter() - start)
            else:
                windows.append(found.latency)
    return statistics.median(pushes) * 1e3, statistics.median(windows) * 1e3


def build(folder: Path) -> tuple[Path, Path]:
    """The C example and the bundle."""
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DVMP_EDGE_EXAMPLES=ON"]
    cmake_build(ROOT / "runtimes" / "embedded", folder / "c", ["recognize_pipe"], options, folder / "log")
    bundle = folder / "bundle"
    if vmp_edge(["build", "--target", "host", "--threads", "1", "--output", str(bundle)]):
        raise SystemExit("the bundle could not be built")
    return folder / "c" / "examples" / "recognize_pipe", bundle


def write(results: dict[str, list[Times]], command: str) -> None:
    """The table."""
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in results.items()}
    python = middle["Python, bgr"]
    lines = [
        "# The C library",
        "",
        f"`egomotion-nano`, host bundle (ExecuTorch, fp32, one thread), frames of {WIDTH}x{HEIGHT}. Medians over",
        "rounds that took turns. A frame: copying, resizing, normalising into the ring. A window: gathering it, the",
        "model, softmax, smoothing. Pixels come from a pipe, whose reading is not counted.",
        "",
        "| | ms a frame | Python's over it | ms a window | Python's over it |",
        "|---|---|---|---|---|",
    ]
    for name, (frame, window) in middle.items():
        lines.append(f"| {name} | {frame:.3f} | {python[0] / frame:.2f} | {window:.3f} | {python[1] / window:.2f} |")
    RESULT.write_text("\n".join([*lines, "", f"Made by `{command}`.", ""]))
    print("\n".join(lines))


def main() -> None:
    """Times both in turns and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600, help="of a round (default: 600)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    arguments = parser.parse_args()
    frames = make_frames(arguments.frames)
    data = {name: b"".join(as_format(frame, name) for frame in frames) for name in FORMATS}
    results: dict[str, list[Times]] = {}
    with tempfile.TemporaryDirectory() as folder:
        example, bundle = build(Path(folder))
        for _ in range(arguments.rounds):
            results.setdefault("Python, bgr", []).append(time_python(bundle, frames))
            for name, content in data.items():
                results.setdefault(f"C, {name}", []).append(time_c(example, bundle, content, name))
    write(results, f"python benchmarks/embedded.py --frames {arguments.frames} --rounds {arguments.rounds}")


if __name__ == "__main__":
    main()
