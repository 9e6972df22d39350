"""What odd cameras and slow recognisers do to a frame ring, for Python's ring and for the C library's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import numpy as np
from numbered_frames import make_ring, numbered, numbers

from vmp_edge.errors import UsageError
from vmp_edge.stream.window import Window

RATES = (1.0, 2.0, 7.3, 12.5, 23.976, 29.97, 59.94, 240.0)  # frames per second of cameras
SPANS = (0.5, 1.0, 3.3, 10.0, 60.0)


@dataclass(frozen=True)
class Case:
    """A window, and each frame's timestamp, whether a window is read after it, and whether the ring is cleared."""

    window: Window
    steps: tuple[tuple[float, bool, bool], ...]

    def lines(self):
        """Return the case as windows.cpp reads it."""
        window = self.window
        yield (
            f"{window.frames} {window.stride or 0} {window.fps or 0.0!r} {window.hop} {window.sparse:d} "
            f"{len(self.steps)}"
        )
        yield from (f"{time!r} {reads:d} {clears:d}" for time, reads, clears in self.steps)

    def in_python(self):
        """Return what windows.cpp prints, from Python's ring."""
        window = self.window
        ring, out = make_ring(window.frames, stride=window.stride, fps=window.fps, hop=window.hop, sparse=window.sparse)
        lines = []
        for number, (time, reads, clears) in enumerate(self.steps):
            if clears:
                ring.clear()
            try:
                ring.push(numbered(number), time)
            except UsageError:
                lines.append("!")
                continue
            read = reads and ring.due() and ring.read(out)
            lines.append(" ".join(map(str, numbers(out))) + " " if read else "-")
        return [*lines, f"{ring.pushed} {ring.dropped}"]


def cases(count, seed, length=400):
    """Return cases: most of them windows over a span, some by rate and by stride."""
    rng = np.random.default_rng(seed)
    return [Case(_window(rng), _steps(rng, length)) for _ in range(count)]


def in_c(program, cases):
    """Return what windows.cpp prints, as a list of lines for each case."""
    text = "\n".join(line for case in cases for line in case.lines()) + "\n"
    done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = iter(done.stdout.splitlines())
    return [[next(lines) for _ in range(len(case.steps) + 1)] for case in cases]


def _window(rng):
    frames, hop = int(rng.choice([1, 2, 3, 4, 8, 16])), int(rng.choice([1, 2, 5, 40]))
    kind, span = rng.random(), float(rng.choice(SPANS))
    if kind < 0.1:
        return Window(frames, int(rng.integers(1, 4)), hop=hop)
    return Window(frames, stride=None, fps=frames / span, hop=hop, sparse=bool(kind < 0.8))


def _steps(rng, length):
    rate = float(rng.choice(RATES))
    steps = np.maximum(rng.normal(1, rng.choice([0, 0.1, 0.5]), length), 0) / rate
    for extreme, share in ((0.0, 0.05), (1.7, 0.01), (45.0, 0.003), (-0.5, 0.01), (-100.0, 0.0004)):
        steps[rng.random(length) < share] = extreme  # frames at once, stalls, time that goes back
    times = float(rng.choice([0.0, 12345.678, 1.7e9])) + 5000.0 + np.cumsum(steps)  # C: below 0 is the clock
    reads = rng.random(length) < rng.choice([1.0, 0.3, 0.02])
    clears = rng.random(length) < 0.01
    return tuple((float(time), bool(read), bool(clear)) for time, read, clear in zip(times, reads, clears, strict=True))
