"""A small engine in numpy that embeds patches, of bundles with an embedding of its own and without."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import ClassVar

import numpy as np
from bundles import SIZE, make_manifest

from vmp_edge import engines
from vmp_edge.bundle.writing import staged_bundle
from vmp_edge.errors import BundleError
from vmp_edge.runtimes.folding import embed_all, fold

PATCH, CHANNELS = 8, 6


class LinearEngine:
    """Random weights, always the same: patches to tokens, all tokens to logits by way of tanh."""

    gate = threading.Event()  # tests close it to make the engine slow
    gate.set()
    failing = False
    embedded: ClassVar[list] = []

    def __init__(self, bundle, threads):
        manifest = bundle.manifest
        self.tubelet = manifest.model["tubelet_size"]
        self.apart = bundle.embedding is not None
        rng = np.random.default_rng(0)
        self.weight = 0.05 * rng.standard_normal((self.tubelet, 3 * PATCH * PATCH, CHANNELS), dtype=np.float32)
        self.bias = rng.standard_normal(CHANNELS, dtype=np.float32)
        tokens = manifest.frames // self.tubelet * (SIZE // PATCH) ** 2
        self.head = rng.standard_normal((tokens * CHANNELS, 3), dtype=np.float32)

    def run(self, video):
        if self.apart:
            return self.run_tokens(embed_all(video, self.tubelet, self.embed))
        patches = self.patches(fold(video, 1))  # (B, T, P, K)
        grouped = patches.reshape(len(video), -1, self.tubelet, *patches.shape[2:])
        return self.run_tokens(np.einsum("btnpk,nkc->btpc", grouped, self.weight) + self.bias)

    def embed(self, frame):
        type(self).embedded.append(frame.copy())
        if type(self).failing:
            raise BundleError("the engine broke")
        shares = np.einsum("pk,nkc->pnc", self.patches(frame), self.weight)
        shares[:, 0] += self.bias
        return shares

    def run_tokens(self, tokens):
        self.gate.wait()
        return np.tanh(tokens.reshape(len(tokens), -1) @ self.head).astype(np.float32) * 3

    @staticmethod
    def patches(frames):
        """(..., 3, S, S) -> (..., P, K)."""
        side = SIZE // PATCH
        cut = frames.reshape(*frames.shape[:-3], 3, side, PATCH, side, PATCH)
        return np.moveaxis(cut, (-4, -2), (-5, -4)).reshape(*frames.shape[:-3], side * side, -1)

    def close(self):
        pass


def write_linear(path, apart, tubelet=1, **changes):
    """A bundle in this engine."""
    manifest = make_manifest(engine="linear", program="model.bin", **changes)
    sizes = {"tubelet_size": tubelet, "patch_size": PATCH, "embed_dim": CHANNELS}
    manifest = replace(manifest, model={**manifest.model, **sizes}, embedding="embedding.bin" if apart else None)
    with staged_bundle(path) as staging:
        staging.add("model.bin", b"program")
        if apart:
            staging.add("embedding.bin", b"embedding")
        staging.seal(manifest)
    return path


def register():
    engines.register("linear", "linear_engine:LinearEngine")
