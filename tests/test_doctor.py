"""The report of `vmp-edge doctor` on machines and bundles."""

import json

import pytest
from bundles import make_manifest, write_bundle

from vmp_edge import doctor, engines, installation, parts
from vmp_edge.cli import main
from vmp_edge.parts import examine_engines, examine_extras, examine_tools
from vmp_edge.trial import Attempt


@pytest.fixture
def quick(monkeypatch):
    """Without the trials of engines and tools, each of which takes a process."""
    for name in ("examine_engines", "examine_tools"):
        monkeypatch.setattr(f"vmp_edge.cli.doctor.{name}", list)


def run_doctor(capsys, *arguments):
    """Return the exit code and the JSON report."""
    code = main(["doctor", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_nothing_that_a_machine_lacks_is_a_failure(quick, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CAMERAS", tmp_path)
    (tmp_path / "video3").touch()
    code, report = run_doctor(capsys)
    assert (code, report["missing"], report["bundle"]) == (0, [], [])
    subjects = {finding["subject"]: finding for finding in report["machine"]}
    assert {"machine", "numpy", "GPU", "GStreamer"} <= set(subjects)
    assert subjects["cameras"]["text"] == "video3"
    assert all(finding["found"] is None for finding in report["machine"])


def test_a_bundle_that_runs_here_lacks_nothing(quick, capsys, tmp_path):
    path = write_bundle(tmp_path / "bundle", make_manifest(libraries=("libc.so.6",)))
    code, report = run_doctor(capsys, path)
    assert (code, report["missing"]) == (0, [])
    subjects = [finding["subject"] for finding in report["bundle"]]
    assert subjects == ["files", "machine", "libc.so.6", "engine brightness"]
    assert main(["doctor", str(path)]) == 0
    assert capsys.readouterr().out.endswith("nothing is missing\n")


@pytest.mark.parametrize(
    ("changes", "subject", "text"),
    [
        ({"machine": "riscv64"}, "machine", "is for riscv64, this machine is"),
        ({"cpu_features": ("avx1024",)}, "CPU", "lacks avx1024: build for another target"),
        ({"libraries": ("libnone.so.7",)}, "libnone.so.7", "not found: install it"),
        ({"engine": "abacus"}, "engine abacus", "which is unknown here"),
    ],
    ids=["machine", "cpu", "library", "engine"],
)
def test_a_missing_part_is_named(quick, capsys, tmp_path, changes, subject, text):
    path = write_bundle(tmp_path / "bundle", make_manifest(**changes))
    code, report = run_doctor(capsys, path)
    assert (code, report["missing"]) == (1, [subject])
    assert text in next(finding["text"] for finding in report["bundle"] if finding["subject"] == subject)
    assert main(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"MISSING  {subject}: " in out
    assert out.endswith("1 missing\n")


def test_a_damaged_bundle_is_a_one_line_error(quick, capsys, tmp_path):
    path = write_bundle(tmp_path / "bundle")
    (path / "model.json").write_text("{}")
    assert main(["doctor", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_all_engines_extras_and_tools_are_listed(capsys):
    code, report = run_doctor(capsys)
    assert (code, report["missing"]) == (0, [])
    assert {part["name"] for part in report["engines"]} >= set(engines.ENGINES)
    for part in report["engines"]:
        assert part["works"] or "; run: " in part["text"] or " run: " in part["text"]
        assert part["installed"] or part["text"].startswith("not installed; run: ")
    assert [part["name"] for part in report["extras"]] == installation.extras()
    for part in report["extras"]:
        assert part["installed"] == (part["missing"] == []) == (part["command"] is None)
    tools = {part["name"]: part for part in report["tools"]}
    assert {"native library", "C++ compiler", "nvcc", "FFmpeg", "H.264 encoder"} <= set(tools)
    assert tools["native library"]["found"] and "scalar" in tools["native library"]["text"]
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name}: " in out for name in [*engines.ENGINES, *installation.extras(), *tools])


BROKEN = {
    "segfault": ("import ctypes; ctypes.string_at(0)", "does not work: it kills the process that tries (SIGSEGV)"),
    "exit": ("import os; os._exit(3)", "does not work: it kills the process that tries (exit code 3)"),
    "ImportError": ("raise ImportError('libGL.so.1: cannot open')", "ImportError: libGL.so.1: cannot open"),
    "OSError": ("raise OSError('wrong ELF class')", "OSError: wrong ELF class"),
    "AttributeError": ("import json; json.nothing", "AttributeError: module 'json' has no attribute 'nothing'"),
    "SystemExit": ("raise SystemExit('no licence')", "SystemExit: no licence"),
    "noise": ("print('hello'); raise ValueError('two\\nlines')", "ValueError: two lines"),
}


@pytest.mark.parametrize(("code", "text"), BROKEN.values(), ids=BROKEN)
def test_an_engine_whose_import_fails_in_any_way_is_told(tmp_path, monkeypatch, code, text):
    (tmp_path / "broken_engine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    record = engines.EngineRecord("broken", "broken_engine:Engine", extra="serve")
    monkeypatch.setitem(engines._registered, "broken", record)
    (part,) = examine_engines(["broken"])
    assert (part.installed, part.version, part.works) == (True, None, False)
    assert text in part.text and part.text.endswith(f"run: {installation.install_command('serve')}")


def test_a_trial_that_hangs_is_given_up():
    outcome = Attempt("signal:pause", timeout=0.2).outcome()
    assert not outcome.works and outcome.text == "it does not answer within 0.2 seconds"


def test_a_broken_engine_of_a_bundle_does_not_end_the_doctor(quick, capsys, tmp_path, monkeypatch):
    """The bundle's program is of an engine of ours, and no program at all."""
    path = write_bundle(tmp_path / "bundle", make_manifest(engine="torch"))
    code, report = run_doctor(capsys, path)
    assert (code, report["missing"]) == (1, ["engine torch"])
    assert "is not a program of the engine 'torch'" in report["bundle"][-1]["text"] or "PyTorch" in str(report)


def test_versions_are_compared(monkeypatch):
    installed = {"aiohttp": "3.9.5", "av": "14.0.0rc1", "onnx": "1.19", "apache-tvm": "0.27.0.post1"}
    monkeypatch.setattr(parts, "version", installed.get)
    met = ["av>=14", "onnx>=1.18", "onnx>=1.18,<2", "onnx==1.19.0", "onnx[ref]>=1", "onnx", "apache-tvm==0.27.0.post1"]
    unmet = ["aiohttp>=3.10", "onnx>=1.20", "onnx<1.19", "onnx==1.18", "pygame"]
    assert [line for line in met + unmet if parts._is_met(line)] == met


def test_an_extra_that_is_not_installed_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(parts, "version", {"av": "15.0"}.get)
    found = {part.name: part for part in examine_extras()}
    assert found["video"].installed and found["video"].command is None
    assert found["serve"].missing == ("aiohttp>=3.10",)
    assert found["serve"].command == installation.install_command("serve")


def test_tools_that_are_missing_are_named_with_their_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDACXX", str(tmp_path / "nvcc"))
    monkeypatch.setattr(parts, "host_machine", lambda: "x86_64")
    tools = {tool.name: tool for tool in examine_tools()}
    assert "apt install g++)" in tools["C++ compiler"].text
    assert "apt install g++-aarch64-linux-gnu" in tools["C++ compiler for aarch64"].text
    assert "apt install qemu-user" in tools["emulator of aarch64"].text
    assert not tools["nvcc"].found and "does not run" in tools["nvcc"].text
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.6, V12.6.20'\n")
    (tmp_path / "nvcc").chmod(0o755)
    assert parts._nvcc().text == f"{tmp_path / 'nvcc'}, CUDA 12.6"
