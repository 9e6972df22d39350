"""Time the C library beside Python on the host bundle of egomotion-nano: from a pushed frame to a result.

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
from camera_frames import HEIGHT, WIDTH, make_frames

from vmp_edge.cli import main as vmp_edge
from vmp_edge.recognizer import load
from vmp_edge.runtimes.building import cmake_build
from vmp_edge.runtimes.executorch.library import executorch_folder
from vmp_edge.stream.stream import Stream

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "embedded.md"
RATE = 30.0  # frames per second
FORMATS = {"bgr": None, "nv12": cv2.COLOR_BGR2YUV_I420, "yuyv": cv2.COLOR_BGR2YUV_YUY2, "grey": cv2.COLOR_BGR2GRAY}

Frames = npt.NDArray[np.uint8]
Times = tuple[float, float]  # median milliseconds of a frame and of a window


def as_format(frame: Frames, name: str) -> bytes:
    """Convert a BGR frame to one of the C example's formats."""
    code = FORMATS[name]
    converted = frame if code is None else cv2.cvtColor(frame, code)
    if name == "nv12":  # two planes of U and V become pairs
        luma, u, v = np.split(converted.reshape(-1), [WIDTH * HEIGHT, WIDTH * HEIGHT * 5 // 4])
        return luma.tobytes() + np.stack([u, v], 1).tobytes()
    return converted.tobytes()


def time_c(example: Path, bundle: Path, data: bytes, name: str) -> Times:
    """Time the C example, which prints the library's own statistics."""
    process = subprocess.run(
        [example, bundle, name, str(WIDTH), str(HEIGHT), str(RATE)],
        input=data,
        capture_output=True,
        check=True,
        env={**os.environ, "VMP_EDGE_LIBRARIES": str(executorch_folder() / "lib")},
    )
    window, frame = re.findall(r"([\d.]+) ms a", process.stderr.decode().splitlines()[-1])
    return float(frame), float(window)


def time_python(bundle: Path, frames: Frames) -> Times:
    """Time `Stream.push`: calls without a window, and the latencies of its results."""
    pushes, windows = [], []
    with load(bundle, threads=1) as recognizer:
        stream = Stream(recognizer, bgr=True)
        for index, frame in enumerate(frames):
            start = time.perf_counter()
            prediction = stream.push(frame, index / RATE)
            if prediction is None:
                pushes.append(time.perf_counter() - start)
            else:
                windows.append(prediction.latency)
    return statistics.median(pushes) * 1e3, statistics.median(windows) * 1e3


def build(folder: Path) -> tuple[Path, Path]:
    """Build the C example and the bundle, and return their paths."""
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DVMP_EDGE_EXAMPLES=ON"]
    cmake_build(ROOT / "runtimes" / "embedded", folder / "c", ["recognize_pipe"], options, folder / "log")
    bundle = folder / "bundle"
    if vmp_edge(["build", "--target", "host", "--threads", "1", "--output", str(bundle)]):
        raise SystemExit("the bundle could not be built")
    return folder / "c" / "examples" / "recognize_pipe", bundle


def write(results: dict[str, list[Times]], command: str) -> None:
    """Write the table."""
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in results.items()}
    python = middle["Python, bgr"]
    lines = [
        "# The C library",
        "",
        f"`egomotion-nano`, host bundle (ExecuTorch, fp32, one thread), frames of {WIDTH}x{HEIGHT}. Medians over",
        "rounds in turns. Work for a frame: copying, resizing, normalising into the ring. Work for a window: gathering",
        "its frames, the model, softmax, smoothing. The pixels come from a pipe; reading it does not count.",
        "",
        "| | ms a frame | Python's over it | ms a window | Python's over it |",
        "|---|---|---|---|---|",
    ]
    for name, (frame, window) in middle.items():
        lines.append(f"| {name} | {frame:.3f} | {python[0] / frame:.2f} | {window:.3f} | {python[1] / window:.2f} |")
    RESULT.write_text("\n".join([*lines, "", f"Made by `{command}`.", ""]))
    print("\n".join(lines))


def main() -> None:
    """Time C and Python in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600, help="frames in a round (default: 600)")
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
