"""The fuzz target runs: for a few seconds here, for ten minutes by `make fuzz`."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from embedded import NATIVE, cmake, write_fake


def test_fuzz_target(built, engine_folder, tmp_path):
    if shutil.which("clang++") is None:
        pytest.skip("needs libFuzzer (Debian: apt install clang libclang-rt-dev)")
    options = ["-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++", "-DVMP_EDGE_FUZZ=ON"]
    folder = cmake(NATIVE, tmp_path / "build", *options, targets=("fuzz",))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    manifest = write_fake(tmp_path / "fake", engine_folder) / "manifest.yaml"
    (corpus / "manifest").write_bytes(b"\1" + manifest.read_bytes())
    (corpus / "frame").write_bytes(bytes([0, 64, 0, 48, 0, 0, 0, 0, 0, 1, 0, 1, 16]) + bytes(range(256)))
    run = [folder / "fuzz", corpus, "-max_total_time=10", "-max_len=8192", "-seed=1"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
