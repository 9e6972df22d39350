"""Draw the figure in docs/events.md: scores over time, the events made of them, and the recorded clips.

python benchmarks/timeline.py --bundle build/host
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from vmp_edge.events.clips import ClipOptions, ClipRecorder
from vmp_edge.events.detector import Event, EventDetector, EventRule
from vmp_edge.recognizer import load
from vmp_edge.sources import open_source
from vmp_edge.stream.stream import Stream

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "assets" / "egomotion-sample.mp4"
RESULT = ROOT / "docs" / "images" / "events.png"
SECONDS, PRE_ROLL, POST_ROLL = 12.6, 0.6, 0.4
COLOURS = {"pan-left": "#2a7fb8", "pan-right": "#d1702b", "tilt-up": "#3f9b57"}


@dataclass
class Run:
    """The results of a run over the sample: scores, events with the times of their reports, and the clips' JSON."""

    rule: EventRule = field(default_factory=EventRule)
    scores: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    clips: list[dict[str, Any]] = field(default_factory=list)


def recognise(bundle: Path, folder: Path) -> Run:
    run, now = Run(), 0.0
    with load(bundle) as recognizer, contextlib.closing(open_source(str(SAMPLE))) as source:
        stream = Stream(recognizer, hop=2, bgr=True)
        options = ClipOptions(folder, PRE_ROLL, POST_ROLL)
        clips = ClipRecorder(options, source.fps or 30.0, run.rule.hold, source.name, print, wait=True)

        def take(event: Event) -> None:
            run.events.append((now, event))
            clips.tell(event)

        detector = EventDetector(run.rule, recognizer.labels, source.name, take)
        while (frame := source.read()) is not None and frame.timestamp < SECONDS:
            now = frame.timestamp
            prediction = stream.push(frame.image, now)
            if prediction is not None:
                run.scores.append((now, dict(zip(recognizer.labels, map(float, prediction.scores), strict=True))))
                detector.update(prediction, now)
            clips.add(frame.image, now)
        clips.close()
    run.clips = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return run


def draw_scores(axes: Any, run: Run) -> None:
    for label, colour in COLOURS.items():
        axes.plot(
            [time for time, _ in run.scores], [row[label] for _, row in run.scores], color=colour, lw=1.8, label=label
        )
    for value, name in ((run.rule.threshold, "threshold"), (run.rule.lower, "release")):
        axes.axhline(value, color="0.45", lw=0.9, ls="--" if name == "threshold" else ":")
        axes.text(0.1, value + 0.02, name, color="0.35", fontsize=8)
    axes.set(ylim=(0, 1), ylabel="score")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8, ncols=3, frameon=False)


def draw_events(axes: Any, run: Run) -> None:
    for when, event in run.events:
        colour = COLOURS[event.label]
        axes.plot(when, 1, marker=">" if event.end is None else "s", color=colour, ms=6, mec="white")
        if event.end is not None:
            axes.barh(1, event.end - event.start, left=event.start, height=0.5, color=colour, alpha=0.35)
            axes.text((event.start + event.end) / 2 + 0.2, 1, event.label, ha="center", va="center", fontsize=8)
    for row, clip in enumerate(run.clips):  # a clip may begin before the previous clip ends
        y = -0.3 * (row % 2)
        axes.barh(y, clip["end"] - clip["start"], left=clip["start"], height=0.28, color="0.85", edgecolor="0.6")
        axes.text((clip["start"] + clip["end"]) / 2, y, clip["clip"], ha="center", va="center", fontsize=7)
    axes.set(ylim=(-0.6, 1.5), xlabel="seconds of assets/egomotion-sample.mp4", xlim=(0, SECONDS))
    axes.set_yticks([-0.15, 1], ["clips", "events"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "host")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = recognise(args.bundle, Path(folder))
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 3.6), sharex=True, height_ratios=(2, 1))
    draw_scores(upper, run)
    draw_events(lower, run)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(RESULT, dpi=110, metadata={"Software": None})
    print(RESULT)


if __name__ == "__main__":
    main()
