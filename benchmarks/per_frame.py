"""What embedding each frame once saves: streams of bundles built `--per-frame` beside those of ordinary ones.

python benchmarks/per_frame.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vmp_edge.cli import main as vmp_edge
from vmp_edge.recognizer import Recognizer, load
from vmp_edge.stream.stream import Stream

RESULT = Path(__file__).parent / "results" / "per_frame.md"
WIDTH, HEIGHT, RATE = 640, 480, 30
HOPS = (1, 2, 4)
MODELS = {"egomotion-nano": 200, "videomambapro-tiny": 6}  # windows of a round


@dataclass
class Times:
    """CPU milliseconds of a stream's calls of `push`, over all rounds, from its first window on.

    Attributes:
        frames: of those that completed no window.
        windows: of those that did.
        latencies: that their results tell, in milliseconds that passed.
        memory: bytes of the ring.
    """

    frames: list[float] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    memory: int = 0

    def a_second(self) -> float:
        """CPU milliseconds for a second of video."""
        return RATE * (sum(self.frames) + sum(self.windows)) / (len(self.frames) + len(self.windows))


def make_frames(count: int) -> npt.NDArray[np.uint8]:
    """A camera that moves over a coarse pattern: uint8 (count, H, W, 3) BGR."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 256, (40, 60, 3), np.uint8), (3 * WIDTH, 2 * HEIGHT))
    places = [(i * 4 % (2 * WIDTH), i * 2 % HEIGHT) for i in range(count)]
    return np.stack([scene[y : y + HEIGHT, x : x + WIDTH] for x, y in places])


def measure(
    recognizer: Recognizer, frames: npt.NDArray[np.uint8], hop: int, windows: int, times: Times
) -> npt.NDArray[np.float32]:
    """Push frames until so many windows came after the first one; their scores (windows + 1, classes)."""
    stream = Stream(recognizer, hop=hop, smoothing=None, bgr=True)
    times.memory = stream.memory
    scores: list[npt.NDArray[np.float32]] = []
    index = 0
    while len(scores) <= windows:
        start = time.thread_time()  # one thread does all: the CPU's time, which other processes do not change
        found = stream.push(frames[index % len(frames)], index / RATE)
        used = (time.thread_time() - start) * 1e3
        index += 1
        if found is not None:
            if scores:
                times.windows.append(used)
                times.latencies.append(found.latency * 1e3)
            scores.append(found.scores)
        elif scores:
            times.frames.append(used)
    return np.stack(scores)


def build(folder: Path, model: str, engine: str, per_frame: bool) -> Path:
    """A bundle, unless it is there already."""
    output = folder / f"{model}-{engine}{'-per-frame' if per_frame else ''}"
    arguments = ["--target", "host", "--engine", engine, "--model", model, "--threads", "1", "--output", str(output)]
    arguments += ["--parity-clips", "1"]
    if not output.exists() and vmp_edge(["build", *arguments, *(["--per-frame"] if per_frame else [])]):
        raise SystemExit("a bundle could not be built")
    return output


def compare(bundles: tuple[Path, Path], name: str, windows: int, rounds: int) -> list[str]:
    """Rows of one model and engine: the ordinary bundle and the other one in turns."""
    rows = []
    frames = make_frames(160)
    with load(bundles[0]) as plain, load(bundles[1]) as apart:
        for hop in HOPS:
            times = Times(), Times()
            for _ in range(rounds):
                pair = (plain, times[0]), (apart, times[1])
                scores = [measure(recognizer, frames, hop, windows, one) for recognizer, one in pair]
            difference = float(np.abs(scores[1] - scores[0]).max())
            rows.append(f"| {name} | {hop} | {_pair(times)} | {difference:.0e} |")
            print(rows[-1], flush=True)
    return rows


def _pair(times: tuple[Times, Times]) -> str:
    """Cells: the ordinary bundle's figure, and the other's."""

    def middle(which: str, digits: int) -> str:
        given = [getattr(one, which) for one in times]
        return " → ".join(f"{statistics.median(one):.{digits}f}" if one else "-" for one in given)

    before, after = (one.a_second() for one in times)
    memory = " → ".join(f"{one.memory / 1e6:.2f}" for one in times)
    return (
        f"{middle('frames', 3)} | {middle('windows', 2)} | {middle('latencies', 2)} | "
        f"{before:.1f} → {after:.1f} | {100 * (1 - after / before):.1f}% | {memory}"
    )


def write(rows: list[str], command: str) -> None:
    """The table, as far as it goes."""
    lines = [
        "# Each frame embedded once",
        "",
        f"Streams of frames of {WIDTH}x{HEIGHT} at {RATE} a second, host bundles, fp32, one thread: ordinary →",
        "built with `--per-frame`, in turns, from the first window on. `egomotion-nano` takes 8 frames of 64x64 at 15",
        "a second (two frames a token), `videomambapro-tiny` 8 of 224x224, every frame. CPU time, as the machine is",
        "shared; a latency is time that passed. Medians; for a second of video, means. A push without a window",
        "resizes a frame, and in the ordinary bundle normalises it; one with a window does all the rest, too.",
        "",
        "| model, engine | hop | CPU ms of a push without a window | with a window | latency, ms "
        "| CPU ms a second of video | saved | ring, MB | largest difference of a score |",
        "|---" * 9 + "|",
        *rows,
    ]
    RESULT.write_text("\n".join([*lines, "", f"Made by `{command}`.", ""]))


def main() -> None:
    """Builds, measures in turns and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=["executorch", "tvm"], help="(default: executorch tvm)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--bundles", type=Path, help="a folder to keep the bundles in, and to take them from")
    arguments = parser.parse_args()
    given = f" --engines {' '.join(arguments.engines)} --rounds {arguments.rounds}"
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.bundles or Path(scratch)
        for model, windows in MODELS.items():
            for engine in arguments.engines:
                bundles = build(folder, model, engine, False), build(folder, model, engine, True)
                rows += compare(bundles, f"{model}, {engine}", windows, arguments.rounds)
                write(rows, f"python benchmarks/per_frame.py{given}")


if __name__ == "__main__":
    main()
