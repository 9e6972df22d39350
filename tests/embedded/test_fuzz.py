"""The fuzz target runs: for a few seconds here, for ten minutes by `make fuzz`."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from embedded import NATIVE, cmake


def test_fuzz_target(tmp_path):
    if shutil.which("clang++") is None:
        pytest.skip("needs libFuzzer (Debian: apt install clang libclang-rt-dev)")
    options = ["-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++", "-DVMP_EDGE_FUZZ=ON"]
    folder = cmake(NATIVE, tmp_path / "build", *options, targets=("fuzz",))
    corpus = shutil.copytree(NATIVE.parent / "seeds", tmp_path / "corpus")
    run = [folder / "fuzz", corpus, "-max_total_time=10", "-max_len=8192", "-seed=1"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
