"""The library for Arm64, built here by the preset and run under qemu-user with Arm64 bundles of both engines."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from embedded import ROOT, cmake, write_fake

from vmp_edge.calibration.egomotion import sample
from vmp_edge.compile.cross import executorch_sdk, tvm_runtime
from vmp_edge.errors import MissingDependencyError
from vmp_edge.recognizer import load
from vmp_edge.runtimes.tvm.library import package_folder
from vmp_edge.stream.stream import Stream

EMBEDDED = ROOT / "runtimes" / "embedded"


@pytest.fixture(scope="module")
def libraries():
    """Another machine's TVM runtime; skips where the tools are missing."""
    for tool, package in (("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"), ("qemu-aarch64", "qemu-user")):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {package}")
    try:
        return tvm_runtime("aarch64")
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def example(libraries, tmp_path_factory):
    """The C example and the library beside it."""
    return cmake(
        EMBEDDED,
        tmp_path_factory.mktemp("aarch64"),
        "--preset=aarch64",
        f"-DVMP_EDGE_TVM_FFI={package_folder('tvm_ffi')}",
        f"-DVMP_EDGE_TVM_FFI_LIBRARY={libraries / 'libtvm_ffi.so'}",
    )


def emulated(example, libraries, bundle, frames):
    folders = [example, example / "tvm", libraries, "/usr/aarch64-linux-gnu/lib"]
    settings = {"LD_LIBRARY_PATH": ":".join(map(str, folders)), "VMP_EDGE_LIBRARIES": f"{example / 'tvm'}:{libraries}"}
    command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", "cortex-a76"]
    command += [word for name, value in settings.items() for word in ("-E", f"{name}={value}")]
    command += [example / "examples" / "recognize_pipe", bundle, "rgb", *map(str, frames.shape[2:0:-1]), "30"]
    return subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)


@pytest.mark.parametrize(("arm", "engine"), [("arm64", "tvm"), ("arm64-executorch", "executorch")])
def test_recognises_under_qemu(example, libraries, once, arm, engine):
    if engine == "executorch":
        try:
            libraries = executorch_sdk("aarch64") / "lib"
        except MissingDependencyError as error:
            pytest.skip(str(error))
    bundle = once.bundle("--target", arm, "--engine", engine)
    host = once.bundle("--target", "host", "--engine", "torch")
    frames = sample.frames(np.random.default_rng(0), sample.script()[:2])[:40]
    done = emulated(example, libraries, bundle, frames)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    with load(host) as recognizer:
        stream = Stream(recognizer)
        expected = [found for i, frame in enumerate(frames) if (found := stream.push(frame, i / 30))]
    assert [(one["frame"], one["label"]) for one in results] == [(one.frame, one.label) for one in expected] != []
    for one, other in zip(results, expected, strict=True):
        assert abs(one["score"] - other.score) < 2e-4  # of which half is JSON's rounding


def test_refuses_a_bundle_for_another_processor(example, libraries, engine_folder, tmp_path):
    bundle = write_fake(tmp_path / "x86", engine_folder, machine="x86_64")
    done = emulated(example, libraries, bundle, np.zeros((1, 8, 8, 3), np.uint8))
    assert done.returncode == 1
    assert "is for x86_64, this machine is aarch64" in done.stderr.decode()
