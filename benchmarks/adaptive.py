"""Draw the figure in docs/adaptive.md: a stream's latency under load, and the governor's decisions.

vmp-edge build --target host --model videomambapro-tiny --frames 4 --image-size 112 --variants depth=6,12 \
    --output build/adaptive
python benchmarks/adaptive.py --bundle build/adaptive
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from vmp_edge.machine import cpu_count
from vmp_edge.recognizer import Prediction, load
from vmp_edge.stream.governor import Budget, Decision, Governor, ladder, worthwhile
from vmp_edge.stream.stream import Stream

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "assets" / "egomotion-sample.mp4"
RESULT = ROOT / "docs" / "images" / "adaptive.png"
HOP, FPS, THREADS = 4, 30.0, 1
CALM, HOGGED, AFTER = 10.0, 20.0, 25.0  # seconds
COLOURS = {"latency": "#c0392b", "cpu": "#c0392b", "relief": "#3f9b57"}


def burn(stop: Any) -> None:
    """Keep a core busy."""
    while not stop.is_set():
        sum(range(10000))


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Run processes that keep the cores busy."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    busy = [context.Process(target=burn, args=(stop,), daemon=True) for _ in range(count)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        stop.set()
        for process in busy:
            process.join()


def frames() -> Iterator[Any]:
    """Yield the sample's frames again and again, each at its time, like a camera."""
    video = cv2.VideoCapture(str(SAMPLE))
    images = []
    while (read := video.read())[0]:
        images.append(read[1])
    start = time.monotonic()
    for number, frame in enumerate(itertools.cycle(images)):
        time.sleep(max(0.0, start + number / FPS - time.monotonic()))
        yield frame


class Run:
    """A stream that first runs alone, then beside busy processes, then alone again.

    Args:
        bundle: Folder of a bundle with variants.
        budget: The governor's budget in seconds; None runs without a governor.
        busy: Number of busy processes.
    """

    def __init__(self, bundle: Path, budget: float | None, busy: int) -> None:
        self.latencies: list[tuple[float, float]] = []
        self.decisions: list[tuple[float, Decision]] = []
        with contextlib.ExitStack() as stack:
            recognizer = stack.enter_context(load(bundle, THREADS))
            names = worthwhile(recognizer.manifest.variants) if budget is not None else ()
            variants = {name: stack.enter_context(load(recognizer.bundle.variants[name], THREADS)) for name in names}
            governor = None if budget is None else Governor(Budget(budget), ladder(HOP, (None, *variants)))
            stream = Stream(
                recognizer, HOP, bgr=True, governor=governor, variants=variants, on_decision=self.take_decision
            )
            self.start = time.monotonic()
            self.hogged = (CALM, CALM + HOGGED)
            stack.enter_context(stream.start(self.take))
            source = frames()
            self.feed(stream, source, CALM)
            with hogs(busy):
                self.feed(stream, source, HOGGED)
            self.feed(stream, source, AFTER)

    def feed(self, stream: Stream, source: Iterator[Any], seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stream.feed(next(source))

    def take(self, prediction: Prediction) -> None:
        self.latencies.append((time.monotonic() - self.start, prediction.latency))

    def take_decision(self, decision: Decision) -> None:
        self.decisions.append((decision.time - self.start, decision))
        print(f"{decision.time - self.start:6.2f} s  {decision}")

    def p95(self, begin: float, end: float) -> float:
        return float(np.percentile([latency for when, latency in self.latencies if begin <= when < end], 95))


def draw(free: Run, governed: Run, budget: float) -> None:
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 4.2), sharex=True, height_ratios=(3, 1))
    for run, colour, name in ((free, "0.7", "without a governor"), (governed, "#2a7fb8", "with a governor")):
        upper.plot(*zip(*run.latencies, strict=True), ".", color=colour, ms=2.5, label=name)
    upper.axhline(budget, color="0.3", lw=0.9, ls="--")
    upper.text(0.1, budget * 1.08, "budget", color="0.3", fontsize=8)
    values = [latency for run in (free, governed) for _, latency in run.latencies]
    upper.set(yscale="log", ylabel="latency of a window (ms)")
    upper.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], ["10", "20", "50", "100", "200", "500", "1000"])
    upper.set_yticks([], minor=True)
    upper.set_ylim(0.8 * min(values), 1.1 * max(values))
    upper.legend(fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    for axes in (upper, lower):
        axes.axvspan(*governed.hogged, color="#c0392b", alpha=0.07, lw=0)
        axes.spines[["top", "right"]].set_visible(False)
    upper.text(CALM, upper.get_ylim()[1], "other processes take the cores", va="bottom", fontsize=8, color="0.3")
    times, levels = [0.0], [0]
    for when, decision in governed.decisions:
        times.append(when)
        levels.append(decision.after)
        lower.plot(when, decision.after, "v" if decision.cause != "relief" else "^", color=COLOURS[decision.cause])
    lower.step([*times, CALM + HOGGED + AFTER], [*levels, levels[-1]], where="post", color="0.4", lw=1.2)
    lower.set(xlabel="seconds", ylabel="level", xlim=(0, CALM + HOGGED + AFTER))
    lower.set_yticks(range(max(levels) + 1))
    lower.invert_yaxis()
    figure.tight_layout()
    figure.savefig(RESULT, dpi=110, metadata={"Software": None})
    print(RESULT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "adaptive")
    parser.add_argument(
        "--budget-ms", type=float, help="default: half of the 95th percentile under load without a governor"
    )
    parser.add_argument(
        "--hogs",
        type=int,
        default=2 * cpu_count(),
        help="number of busy processes (default: two for each core)",
    )
    args = parser.parse_args()
    free = Run(args.bundle, None, args.hogs)
    budget = args.budget_ms / 1e3 if args.budget_ms else free.p95(CALM, CALM + HOGGED) / 2
    governed = Run(args.bundle, budget, args.hogs)
    parts = {"calm": (0.0, CALM), "hogged": (CALM + 5, CALM + HOGGED), "after": (CALM + HOGGED + 5, 1e9)}
    for name, part in parts.items():
        values = ", ".join(f"{run.p95(*part) * 1e3:.1f} ms" for run in (free, governed))
        print(f"{name}: p95 without and with a governor {values}; budget {budget * 1e3:.1f} ms")
    draw(free, governed, budget)


if __name__ == "__main__":
    main()
