"""Run a stream for long, and check memory, threads, open files and timestamps.

python benchmarks/soak.py --bundle build/host

Synthetic frames go through a motion gate and egomotion-nano. They repeat every ten seconds, of which two show motion.
So the last results must equal those of the first cycles: a clock that drifts, or a ring that loses count, would choose
other frames and give other scores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vmp_edge.events.detector import EventDetector, EventRule
from vmp_edge.recognizer import load
from vmp_edge.stream.motion import MotionGate
from vmp_edge.stream.statistics import Statistics
from vmp_edge.stream.stream import Stream

RESULT = Path(__file__).parent / "results" / "soak.md"
RATE, WIDTH, HEIGHT = 30, 160, 120
MOVING = 2 * RATE  # frames
CYCLE = 5 * MOVING  # frames after which the picture repeats
_MB = 1e6


@dataclass(frozen=True)
class Sample:
    """The state of the process after some number of frames."""

    frames: int
    seconds: float
    resident: float  # bytes
    threads: int
    files: int


def measure(frames: int, start: float) -> Sample:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    threads, files = (len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("task", "fd"))
    return Sample(frames, time.monotonic() - start, resident, threads, files)


def make_cycle() -> npt.NDArray[np.uint8]:
    """Draw a camera that pans right for a second, back for a second, and rests: uint8 (CYCLE, H, W, 3) BGR."""
    scene = cv2.resize(np.random.default_rng(0).integers(0, 256, (16, 48, 3), np.uint8), (3 * WIDTH, HEIGHT))
    steps = np.abs(np.minimum(np.arange(CYCLE), MOVING) - MOVING // 2) * 4
    return np.stack([scene[:, x : x + WIDTH] for x in steps])


class Soak:
    """Push frames into a stream and check its results."""

    def __init__(self, stream: Stream) -> None:
        self.drift = 0.0  # largest difference of a timestamp, in seconds
        self.difference = 0.0  # largest difference of a score from the first settled cycle
        self.results = self.events = 0
        self._stream = stream
        self._expected: dict[int, npt.NDArray[np.float32]] = {}
        rule = EventRule(threshold=0.4, release=0.4, hold=0, gap=0)
        self._detector = EventDetector(rule, stream.recognizer.labels, "soak", self._count)

    def run(self, count: int, samples: int) -> list[Sample]:
        cycle, start = make_cycle(), time.monotonic()
        history = [measure(0, start)]
        for index in range(count):
            self._push(cycle[index % CYCLE], index)
            if (index + 1) * samples // count != index * samples // count:
                history.append(measure(index + 1, start))
                print(history[-1], file=sys.stderr, flush=True)
        return history

    def _push(self, frame: npt.NDArray[np.uint8], index: int) -> None:
        prediction = self._stream.push(frame, index / RATE)
        if prediction is None:
            return
        assert prediction.timestamp is not None
        self.results += 1
        self.drift = max(self.drift, abs(prediction.timestamp - index / RATE))
        self._detector.update(prediction, prediction.timestamp)
        if index >= 20 * CYCLE:  # the smoothed scores and the gate's noise floor have settled
            expected = self._expected.setdefault(index % CYCLE, prediction.scores)
            self.difference = max(self.difference, float(np.abs(prediction.scores - expected).max()))

    def _count(self, event: object) -> None:
        self.events += 1


def growth(samples: list[Sample]) -> float:
    """Return the growth of memory in bytes per million frames.

    Least squares over the second half, when everything that is allocated once exists.
    """
    half = samples[len(samples) // 2 :]
    return float(np.polyfit([sample.frames / 1e6 for sample in half], [sample.resident for sample in half], 1)[0])


def report(samples: list[Sample], soak: Soak, args: argparse.Namespace, statistics: Statistics) -> str:
    step = max((len(samples) - 1) // 10, 1)
    rows = [
        f"| {s.frames:,} | {s.seconds:.0f} | {s.resident / _MB:.1f} | {s.threads} | {s.files} |"
        for s in samples[:1] + samples[step::step]
    ]
    last = samples[-1]
    return "\n".join(
        [
            "# Soak",
            "",
            f"`python benchmarks/soak.py --frames {args.frames} --hop {args.hop}`: {last.frames:,} synthetic frames of "
            f"{WIDTH}x{HEIGHT}, {RATE} per second by",
            "their timestamps, through `Stream` with egomotion-nano, a window every "
            f"{args.hop} frames, a motion gate, and the event detector. Two",
            "seconds of ten show motion. The machine was shared: the seconds say nothing about speed.",
            "",
            "| frames | seconds | resident MB | threads | open files |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"- {soak.results:,} results: {statistics.windows:,} windows recognised, {statistics.skipped:,} skipped as "
            f"nothing moved; {statistics.dropped} frames dropped, {soak.events:,} events reported.",
            f"- Memory over the second half: {growth(samples) / _MB:+.2f} MB per million frames (least squares over "
            f"{len(samples) // 2} samples).",
            f"- Timestamps of results: at most {soak.drift:g} s from their frames' own.",
            f"- Scores at each phase of the repeating picture: at most {soak.difference:.1e} from those of the first "
            "settled cycle.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("build/host"))
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--hop", type=int, default=10)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    with load(args.bundle, threads=1) as recognizer:
        stream = Stream(recognizer, hop=args.hop, bgr=True, gate=MotionGate())
        soak = Soak(stream)
        samples = soak.run(args.frames, args.samples)
        text = report(samples, soak, args, stream.statistics())
    args.result.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
