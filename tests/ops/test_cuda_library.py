"""The CUDA library as it was built: its machine code for every architecture, and its behaviour without a GPU."""

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vmp_edge import ops
from vmp_edge.errors import MissingDependencyError
from vmp_edge.ops import _arguments, _cuda, _cuda_kernels, _dispatch
from vmp_edge.ops.cases import ScanCase

ROOT = Path(__file__).parents[2]
LIBRARY = _cuda.library_path()
needs_library = pytest.mark.skipif(LIBRARY is None, reason="the CUDA kernels were not built: there was no nvcc")

FATBIN = 0xBA55ED50
CUBIN = 2


def code_inside(path):
    """Return (kind, architecture) of each piece of device code, from the headers of the section .nv_fatbin."""
    elffile = pytest.importorskip("elftools.elf.elffile", reason="needs pyelftools, of the extra `test`")
    with path.open("rb") as file:
        data = elffile.ELFFile(file).get_section_by_name(".nv_fatbin").data()
    pieces = set()
    offset = 0
    while offset + 16 <= len(data):
        magic, _, header, size = struct.unpack_from("<IHHQ", data, offset)
        if magic != FATBIN:  # padding
            offset += 8
            continue
        entry, end = offset + header, offset + header + size
        while entry < end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", data, entry)
            (architecture,) = struct.unpack_from("<I", data, entry + 28)
            pieces.add((kind, architecture))
            entry += entry_header + entry_size
        offset = end
    return pieces


def compiler_release():
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("not installed: nvcc")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"release (\d+)", version)[1])


@needs_library
def test_machine_code_of_each_architecture_of_the_table_is_inside_and_no_ptx():
    table = (ROOT / "runtimes" / "cuda" / "src" / "tuning.h").read_text()
    architectures = {int(sm) for sm in re.findall(r"^    \{(\d+),", table, re.MULTILINE)}
    assert architectures == {80, 87, 90, 110}
    if compiler_release() < 13:
        architectures.remove(110)  # CUDA 12 has another name for it
    assert code_inside(LIBRARY) == {(CUBIN, sm) for sm in architectures}


def test_no_kernel_spills_a_register(tmp_path):
    compiler_release()
    table = (ROOT / "benchmarks" / "results" / "cuda_registers.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == 33 and "spills" not in "".join(rows)
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "cuda_registers.py",
            "--architectures",
            "87",
            "--output",
            tmp_path / "table.md",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_library
def test_needs_no_cuda_at_load_time():
    elffile = pytest.importorskip("elftools.elf.elffile", reason="needs pyelftools, of the extra `test`")
    with LIBRARY.open("rb") as file:
        dynamic = elffile.ELFFile(file).get_section_by_name(".dynamic")
        needed = {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")}
        paths = [tag.entry.d_tag for tag in dynamic.iter_tags() if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")]
    assert not [name for name in needed if "cuda" in name or "torch" in name]
    assert not paths


@needs_library
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_says_in_one_line_that_there_is_no_gpu():
    library = _cuda.open_library(LIBRARY)
    code = library.vmp_cuda_supported()
    assert code >= 1000
    message = library.vmp_cuda_error(code).decode()
    assert message and "\n" not in message
    with pytest.raises(RuntimeError, match=re.escape(message)):
        _cuda.workspace_bytes(library, _cuda.Scan(1, 100, 4, 4))


def test_refuses_a_library_that_is_none(tmp_path):
    path = tmp_path / "libvmp_cuda.so"
    path.write_bytes(b"not a library")
    with pytest.raises(MissingDependencyError, match="cannot be loaded"):
        _cuda.open_library(path)


def test_without_the_library_the_reference_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("VMP_CUDA_LIBRARY", str(tmp_path / "absent.so"))
    assert _cuda.library_path() is None
    monkeypatch.setattr(_cuda, "load", lambda: None)
    a = _arguments.scan_arguments(**ScanCase(1, 5, 4, 4).inputs())
    monkeypatch.setattr(_cuda_kernels, "supports", _cuda_kernels.supports.__wrapped__)
    assert not _cuda_kernels.supports(torch.device("cuda", 0))
    assert _dispatch.kernels_for(a) == "native"


def test_the_benchmark_refuses_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "scan_cuda.py"], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.strip().count("\n") == 0 and "needs an NVIDIA GPU" in done.stderr


def test_the_cpu_path_does_not_touch_the_cuda_library(monkeypatch):
    monkeypatch.setattr(_cuda, "load", lambda: pytest.fail("loaded"))
    ops.selective_scan(**ScanCase(1, 5, 4, 4).inputs())
