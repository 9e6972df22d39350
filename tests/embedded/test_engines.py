"""Real bundles through the C library: the same labels and scores as Python over a whole video, on both engines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from embedded import ROOT, cmake

import vmp_edge
from vmp_edge.calibration.egomotion import sample
from vmp_edge.models import ModelOptions, VideoMamba
from vmp_edge.recognizer import load
from vmp_edge.runtimes.executorch.library import executorch_folder
from vmp_edge.runtimes.tvm.library import package_folder, runtime_library
from vmp_edge.stream.stream import Stream
from vmp_edge.zoo.labels import read_list

EMBEDDED = ROOT / "runtimes" / "embedded"
RATE = 30.0
# In a process of its own: ExecuTorch's operators are registered once a process, and Python's engine does so, too.
CHILD = """
import sys
import numpy as np
from embedded import BGR, Library
edge, bundle, libraries, source, result = Library(sys.argv[1]), *sys.argv[2:]
recognizer = edge.recognizer(bundle, libraries)
stream = edge.stream(recognizer)
rows, names = [], []
for index, frame in enumerate(np.load(source)):
    edge.push(stream, frame, index / 30.0, kind=BGR)
    if found := edge.get_result(stream):
        rows.append(np.append(found["scores"], found["frame"]))
        names.append(found["name"])
assert "torch" not in sys.modules
np.savez(result, rows=rows, names=names)
"""


@pytest.fixture(scope="module")
def frames():
    """A few seconds of a camera that moves through a town: uint8 (T, H, W, 3) BGR."""
    return np.ascontiguousarray(sample.frames(np.random.default_rng(0), sample.script()[:4])[:150, :, :, ::-1])


@pytest.fixture(scope="module", params=["executorch", "tvm"])
def bundle(request, once, tmp_path_factory):
    """A host bundle of egomotion-nano, by the name of its engine."""
    path = tmp_path_factory.mktemp("engines") / request.param
    path.symlink_to(once.bundle("--target", "host", "--engine", request.param))
    return path


def libraries(engine, built):
    """The folders that a device would have the engine's libraries in."""
    if engine == "executorch":
        return str(executorch_folder() / "lib")
    return f"{package_folder('tvm_ffi') / 'lib'}:{runtime_library().parent}:{built / 'vmp_edge' / 'tvm'}"


def environment(engine, built):
    return {**os.environ, "VMP_EDGE_LIBRARIES": libraries(engine, built)}


def python_results(bundle, frames):
    with load(bundle) as recognizer:
        stream = Stream(recognizer, bgr=True)
        found = [stream.push(frame, index / RATE) for index, frame in enumerate(frames)]
    return [result for result in found if result is not None]


def check_as_python(built, bundle, engine, frames, tmp_path):
    """The C library's labels, windows and scores of a whole video are Python's; returns these results."""
    expected = python_results(bundle, frames)
    np.save(tmp_path / "frames.npy", frames)
    library, result = built / "vmp_edge" / "libvmp_edge.so", tmp_path / "result.npz"
    child = [sys.executable, "-c", CHILD, library, bundle, libraries(engine, built)]
    support = str(ROOT / "tests" / "support")
    done = subprocess.run(
        [*child, tmp_path / "frames.npy", result],
        env={**os.environ, "PYTHONPATH": support},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(result)
    assert list(found["names"]) == [one.label for one in expected]
    assert list(found["rows"][:, -1]) == [one.frame for one in expected]
    np.testing.assert_allclose(found["rows"][:, :-1], [one.scores for one in expected], atol=1e-4)
    return expected


def test_whole_video_as_python_recognises_it(built, bundle, frames, tmp_path):
    assert len(check_as_python(built, bundle, bundle.name, frames, tmp_path)) > 20


@pytest.mark.parametrize("engine", ["executorch", "tvm"])
@pytest.mark.parametrize("features", [(), ("--features",)], ids=["logits", "features"])
def test_one_direction_and_the_first_400_of_710_classes(built, once, frames, tmp_path, engine, features):
    """A model that reads the mean of its tokens, with the classes of Kinetics-400 alone, whose names have spaces."""
    torch.manual_seed(0)
    options = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 710}
    model = VideoMamba(ModelOptions(**options, directions="forward", mask_backward=False))
    model.head.weight.data *= 30  # scores that differ
    checkpoint = tmp_path / "videomambapro_k710.pth"
    torch.save({"model": model.state_dict()}, checkpoint)
    place = ("--target", "host", "--engine", engine)
    wanted = ("--readout", "mean", "--classes", 400, "--labels", "k400", *features)
    bundle = once.bundle(*place, *wanted, checkpoint=checkpoint)
    results = check_as_python(built, bundle, engine, frames[:60], tmp_path)
    assert len(results) > 5 and len(results[0].scores) == 400
    assert len({one.label for one in results}) > 1 and {one.label for one in results} <= set(read_list("k400"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The library as another project finds it: a prefix."""
    prefix = tmp_path_factory.mktemp("prefix")
    build = cmake(
        EMBEDDED,
        tmp_path_factory.mktemp("release"),
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        "-DCMAKE_INSTALL_LIBDIR=lib",
        f"-DVMP_EDGE_TVM_FFI={package_folder('tvm_ffi')}",
    )
    subprocess.run([sys.executable, "-m", "cmake", "--install", build], check=True, capture_output=True)
    return prefix


@pytest.fixture(scope="module")
def examples(installed, tmp_path_factory):
    """The examples, built against it with find_package."""
    return cmake(EMBEDDED / "examples", tmp_path_factory.mktemp("examples"), f"-DCMAKE_PREFIX_PATH={installed}")


def test_c_example_on_a_pipe(examples, built, bundle, frames):
    done = subprocess.run(
        [examples / "recognize_pipe", bundle, "bgr", *map(str, frames.shape[2:0:-1]), str(RATE)],
        input=frames.tobytes(),
        capture_output=True,
        env=environment(bundle.name, built),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    expected = python_results(bundle, frames)
    assert [(one["frame"], one["label"]) for one in results] == [(one.frame, one.label) for one in expected]


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["nowhere", "bgr", "64", "48", "30"], 1, "nowhere does not exist"),
        (["BUNDLE", "bgr", "64", "48", "30"], 1, "not whole"),
        (["BUNDLE", "plaid", "64", "48", "30"], 2, "usage"),
        (["BUNDLE"], 2, "usage"),
    ],
)
def test_c_example_says_what_is_wrong(examples, built, bundle, arguments, code, words):
    command = [examples / "recognize_pipe", *(str(bundle) if word == "BUNDLE" else word for word in arguments)]
    done = subprocess.run(
        command, input=b"x" * 100, capture_output=True, env=environment(bundle.name, built), check=False
    )
    assert done.returncode == code and len(done.stderr.splitlines()) == 1 and words in done.stderr.decode()


def test_opencv_example_on_a_file(examples, built, bundle, frames, tmp_path):
    if not (examples / "recognize_opencv").exists():
        pytest.skip("needs OpenCV's headers (Debian: apt install libopencv-dev)")
    import cv2

    path = tmp_path / "town.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, frames.shape[2:0:-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    run = [examples / "recognize_opencv", bundle, path]
    done = subprocess.run(run, capture_output=True, text=True, env=environment(bundle.name, built), check=False)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert results and f"{len(results)} windows of {len(frames)} frames" in done.stderr


def test_pkg_config(installed, tmp_path):
    if shutil.which("pkg-config") is None:
        pytest.skip("needs pkg-config")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(installed / "lib" / "pkgconfig")}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "vmp_edge"], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    source = tmp_path / "version.c"
    source.write_text('#include <stdio.h>\n#include "vmp_edge.h"\nint main(void) { puts(vmp_edge_version()); }\n')
    subprocess.run(["cc", "-std=c11", "-pedantic-errors", source, "-o", tmp_path / "version", *flags], check=True)
    done = subprocess.run(
        [tmp_path / "version"],
        capture_output=True,
        text=True,
        env={"LD_LIBRARY_PATH": str(installed / "lib")},
        check=True,
    )
    assert done.stdout.strip() == vmp_edge.__version__


def test_only_the_api_is_visible(installed):
    library = installed / "lib" / "libvmp_edge.so"
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in symbols.splitlines()}
    header = (EMBEDDED / "include" / "vmp_edge.h").read_text()
    assert names and all(name.startswith("vmp_edge_") and f"{name}(" in header for name in names)
    declared = {line.split("(")[0].split()[-1].lstrip("*") for line in header.splitlines() if "VMP_EDGE_API " in line}
    assert declared - {"VMP_EDGE_API"} <= names | {"__attribute__"}


def test_static_library(tmp_path, installed):
    folder = cmake(
        EMBEDDED,
        tmp_path / "build",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DVMP_EDGE_EXAMPLES=ON",
        "-DCMAKE_BUILD_TYPE=Debug",  # which is about linking
    )
    assert Path(folder / "libvmp_edge.a").exists()
    done = subprocess.run([folder / "examples" / "recognize_pipe"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage" in done.stderr
