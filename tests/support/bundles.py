"""Small bundles for the tests, in the numpy engine beside this file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import brightness_engine
import numpy as np

from vmp_edge.bundle.manifest import Manifest
from vmp_edge.bundle.reading import Bundle, describe_file
from vmp_edge.bundle.writing import staged_bundle
from vmp_edge.preprocessing import Preprocessing

SUPPORT = Path(__file__).parent
FRAMES, SIZE = 4, 16

brightness_engine.register()


def make_manifest(**changes):
    manifest = Manifest(
        name="brightness",
        model={"num_classes": 3, "num_frames": FRAMES, "image_size": SIZE},
        target="host",
        engine="brightness",
        precision="fp32",
        frames=FRAMES,
        preprocessing=Preprocessing(SIZE),
        labels=brightness_engine.LABELS,
        program="model.json",
        machine="any",
        tools={"numpy": np.__version__},
    )
    return replace(manifest, **changes)


def write_bundle(path, manifest=None, **program):
    with staged_bundle(path) as staging:
        staging.add("model.json", json.dumps({"gain": 5.0, **program}).encode())
        staging.seal(manifest or make_manifest())
    return path


def unsealed(folder, program, options, embedding=None, **changes):
    """What an engine sees of a bundle: its files where they are, and a manifest of the model's options.

    Args:
        folder: of the program.
        program: the file's name.
        options: of the model; what they lack, an engine's test does not need.
        embedding: path of the embedding's program in the folder, where that is one of its own.
        changes: of the manifest.
    """
    side = getattr(options, "image_size", SIZE)
    told = {
        "model": vars(options),
        "frames": getattr(options, "num_frames", FRAMES),
        "preprocessing": Preprocessing(side),
        "labels": tuple(map(str, range(options.num_classes))),
    }
    files = {path.name: describe_file(path) for path in folder.iterdir() if path.is_file()}
    embedded = {} if embedding is None else {"embedding": embedding.name}
    return Bundle(folder, make_manifest(program=program, files=files, **{**told, **embedded, **changes}))


def grey(value, height=24, width=32):
    return np.full((height, width, 3), value, np.uint8)
