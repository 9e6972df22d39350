"""A small engine in numpy: does the picture get brighter or darker? It needs the frames, and their order in time."""

from __future__ import annotations

import json
import threading

import numpy as np

from vmp_edge import engines
from vmp_edge.errors import BundleError

FEATURES = 3
LABELS = ("brighter", "darker", "steady")


class BrightnessEngine:
    """Logits from the slope of the frames' mean brightness; the program is JSON with a gain, and an offset.

    Where the manifest promises features, they are the mean of each colour.
    """

    gate = threading.Event()  # tests close it to make the engine slow
    gate.set()

    def __init__(self, bundle, threads):
        program = json.loads(bundle.program.read_text())
        self.threads = threads
        self.features = bundle.manifest.features
        self.classes = len(bundle.manifest.labels)
        self.gain, self.offset = program["gain"], program.get("offset", 0.0)
        self.fails_after = program.get("fails_after")
        self.runs = 0

    def run(self, video):
        self.gate.wait()
        self.runs += 1
        if self.fails_after is not None and self.runs > self.fails_after:
            raise BundleError("the engine broke")
        brightness = video.mean(axis=(1, 3, 4))
        slope = (brightness[:, -1] - brightness[:, 0]) * self.gain
        logits = np.stack([slope, -slope, np.full_like(slope, 0.5 + self.offset)], axis=1).astype(np.float32)
        if not self.classes:
            logits = logits[:, :0]
        return np.concatenate([logits, video.mean(axis=(2, 3, 4))], axis=1) if self.features else logits

    def close(self):
        self.gain = float("nan")


def register():
    engines.register("brightness", "brightness_engine:BrightnessEngine")
