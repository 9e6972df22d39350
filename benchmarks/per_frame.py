"""Measure what embedding each frame once saves: streams of bundles built `--per-frame` beside ordinary bundles.

python benchmarks/per_frame.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from camera_frames import HEIGHT, WIDTH, make_frames

from vmp_edge.cli import main as vmp_edge
from vmp_edge.recognizer import Recognizer, load
from vmp_edge.stream.stream import Stream

RESULT = Path(__file__).parent / "results" / "per_frame.md"
RATE = 30  # frames per second
HOPS = (1, 2, 4)
MODELS = {"egomotion-nano": 200, "videomambapro-tiny": 6}  # windows in a round


@dataclass
class Times:
    """Times of a stream's calls of `push`, over all rounds, from its first window on.

    Attributes:
        frames: CPU milliseconds of the calls that completed no window.
        windows: CPU milliseconds of the calls that completed a window.
        latencies: Latencies of the windows' results, in milliseconds of elapsed time.
        memory: Bytes of the ring.
    """

    frames: list[float] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    memory: int = 0

    def a_second(self) -> float:
        """Return CPU milliseconds for a second of video."""
        return RATE * (sum(self.frames) + sum(self.windows)) / (len(self.frames) + len(self.windows))


def measure(
    recognizer: Recognizer, frames: npt.NDArray[np.uint8], hop: int, windows: int, times: Times
) -> npt.NDArray[np.float32]:
    """Push frames until the first window and so many more are complete.

    Returns:
        The windows' scores, (windows + 1, classes).
    """
    stream = Stream(recognizer, hop=hop, smoothing=None, bgr=True)
    times.memory = stream.memory
    scores: list[npt.NDArray[np.float32]] = []
    index = 0
    while len(scores) <= windows:
        start = time.thread_time()  # all work is in one thread; other processes do not change its CPU time
        prediction = stream.push(frames[index % len(frames)], index / RATE)
        used = (time.thread_time() - start) * 1e3
        index += 1
        if prediction is not None:
            if scores:
                times.windows.append(used)
                times.latencies.append(prediction.latency * 1e3)
            scores.append(prediction.scores)
        elif scores:
            times.frames.append(used)
    return np.stack(scores)


def build(folder: Path, model: str, engine: str, per_frame: bool) -> Path:
    """Build a bundle, unless it exists already, and return its folder."""
    output = folder / f"{model}-{engine}{'-per-frame' if per_frame else ''}"
    arguments = ["--target", "host", "--engine", engine, "--model", model, "--threads", "1", "--output", str(output)]
    arguments += ["--parity-clips", "1"]
    if not output.exists() and vmp_edge(["build", *arguments, *(["--per-frame"] if per_frame else [])]):
        raise SystemExit("a bundle could not be built")
    return output


def compare(bundles: tuple[Path, Path], name: str, windows: int, rounds: int) -> list[str]:
    """Measure the ordinary bundle and the per-frame bundle of a model and engine in turns; return the table's rows."""
    rows = []
    frames = make_frames(160)
    with load(bundles[0]) as ordinary, load(bundles[1]) as per_frame:
        for hop in HOPS:
            times = Times(), Times()
            for _ in range(rounds):
                pair = (ordinary, times[0]), (per_frame, times[1])
                scores = [measure(recognizer, frames, hop, windows, kept) for recognizer, kept in pair]
            difference = float(np.abs(scores[1] - scores[0]).max())
            rows.append(f"| {name} | {hop} | {_pair(times)} | {difference:.0e} |")
            print(rows[-1], flush=True)
    return rows


def _pair(times: tuple[Times, Times]) -> str:
    """Return cells with the figures of the ordinary bundle and of the per-frame bundle."""

    def medians(name: str, digits: int) -> str:
        columns = [getattr(bundle, name) for bundle in times]
        return " → ".join(f"{statistics.median(values):.{digits}f}" if values else "-" for values in columns)

    before, after = (bundle.a_second() for bundle in times)
    memory = " → ".join(f"{bundle.memory / 1e6:.2f}" for bundle in times)
    return (
        f"{medians('frames', 3)} | {medians('windows', 2)} | {medians('latencies', 2)} | "
        f"{before:.1f} → {after:.1f} | {100 * (1 - after / before):.1f}% | {memory}"
    )


def write(rows: list[str], command: str) -> None:
    """Write the table with the rows so far."""
    lines = [
        "# Each frame embedded once",
        "",
        f"Streams of frames of {WIDTH}x{HEIGHT} at {RATE} per second, host bundles, fp32, one thread: the ordinary",
        "bundle → the bundle built with `--per-frame`, measured in turns from the first window on. `egomotion-nano`",
        "takes 8 frames of 64x64 at 15 per second (two frames a token), `videomambapro-tiny` 8 of 224x224, every",
        "frame. Times are CPU time, as the machine is shared, but a latency is elapsed time. Figures are medians, for",
        "a second of video means. A push without a window resizes a frame and, in the ordinary bundle, normalises it;",
        "a push with a window also does all other work.",
        "",
        "| model, engine | hop | CPU ms of a push without a window | with a window | latency, ms "
        "| CPU ms a second of video | saved | ring, MB | largest difference of a score |",
        "|---" * 9 + "|",
        *rows,
    ]
    RESULT.write_text("\n".join([*lines, "", f"Made by `{command}`.", ""]))


def main() -> None:
    """Build the bundles, measure them in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=["executorch", "tvm"], help="(default: executorch tvm)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--bundles", type=Path, help="folder that keeps the bundles for the next run")
    arguments = parser.parse_args()
    options = f" --engines {' '.join(arguments.engines)} --rounds {arguments.rounds}"
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.bundles or Path(scratch)
        for model, windows in MODELS.items():
            for engine in arguments.engines:
                bundles = build(folder, model, engine, False), build(folder, model, engine, True)
                rows += compare(bundles, f"{model}, {engine}", windows, arguments.rounds)
                write(rows, f"python benchmarks/per_frame.py{options}")


if __name__ == "__main__":
    main()
