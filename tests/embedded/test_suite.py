"""suite.cpp watched by sanitizers (memory, undefined behaviour, races), and its memory over many frames."""

from __future__ import annotations

import subprocess

import pytest
from embedded import NATIVE, cmake, write_fake
from odd_clocks import cases, in_c


@pytest.fixture
def bundles(tmp_path, engine_folder):
    """What suite.cpp takes: a bundle, one whose engine fails, a damaged one, and one whose engine is slow."""
    good, failing, damaged, slow = (
        write_fake(tmp_path / name, engine_folder, program)
        for name, program in (("good", "0 0"), ("failing", "0 3"), ("damaged", "0 0"), ("slow", "20 0"))
    )
    (damaged / "model.pte").write_bytes(b"1 0")
    return [engine_folder, good, failing, damaged, slow]


def run(suite, bundles, *more):
    done = subprocess.run([suite, *bundles, *more], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_under_sanitizers(built, bundles, tmp_path, sanitizers):
    # as the sanitizers' documentation advises: -O1 compiles in half the time of -O3 and hides less from them
    options = [f"-DVMP_EDGE_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-O1"]
    folder = cmake(NATIVE, tmp_path / "build", *options, targets=("suite", "windows"))
    assert run(folder / "suite", bundles) == "done\n"
    made = cases(60, seed=18)
    assert in_c(folder / "windows", made) == [case.in_python() for case in made]


def test_hundred_thousand_frames_in_flat_memory(built, bundles):
    words = run(built / "suite", bundles, "100000").split()
    frames, before, after = int(words[0]), int(words[2]), int(words[5])
    assert frames == 100_000
    assert after - before < 1024, "kilobytes more over 90,000 frames"
