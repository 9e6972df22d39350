"""ExecuTorch for Arm64 Linux and Android: what is in the bundles, run under an emulator, and what may be missing."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import main
from vmp_edge.compile import cross
from vmp_edge.errors import MissingDependencyError
from vmp_edge.machine import host_machine

pytest.importorskip("executorch", reason="needs executorch")

from vmp_edge.runtimes.executorch.library import LIBRARY

PROGRAM = "model.pte"
AARCH64 = 183  # in an ELF header


@pytest.fixture
def build(tmp_path, checkpoint):
    """A function that builds a small model for a target: exit code, and the bundle's folder."""

    def run(target, *arguments):
        output = tmp_path / target
        command = ["build", "--target", target, "--checkpoint", str(checkpoint), "--output", str(output)]
        return main([*command, *arguments]), output

    return run


@pytest.fixture
def without(monkeypatch):
    """A function that hides a tool."""
    which = shutil.which
    return lambda part: monkeypatch.setattr(
        shutil, "which", lambda tool, **given: None if part in tool else which(tool, **given)
    )


def need_tools():
    if host_machine() == "aarch64":
        pytest.skip("this machine is one: the host's tests cover it")
    missing = [tool for tool in ("qemu-aarch64", "aarch64-linux-gnu-g++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    try:
        cross.executorch_sdk("aarch64")
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_both_run_under_an_emulator(build):
    need_tools()
    bundles = {}
    for target, machine, files in (
        ("arm64-executorch", "aarch64", {PROGRAM, LIBRARY}),
        ("android-cpu", "android", {PROGRAM}),
    ):
        code, output = build(target)
        assert code == 0
        manifest = Bundle.open(output, any_machine=True).manifest
        assert manifest.machine == machine
        assert set(manifest.files) == files
        assert manifest.parity["emulator"] == "qemu-aarch64, cortex-a76"
        assert manifest.parity["max_difference"] <= 1e-4
        bundles[target] = output
    assert len({(output / PROGRAM).read_bytes() for output in bundles.values()}) == 1
    header = (bundles["arm64-executorch"] / LIBRARY).read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == AARCH64


def test_a_program_that_cannot_be_run_says_so(build, without, capfd):
    without("qemu")
    code, output = build("android-cpu")
    assert code == 0
    assert list(Bundle.open(output, any_machine=True).manifest.parity) == ["not_run"]
    told = capfd.readouterr().err
    assert "NOT compared with the source model: running it needs qemu-aarch64" in told
    assert "run it: on a android-cpu machine, model.pte with ExecuTorch's runtime and vmp's operators" in told


def test_a_missing_compiler_is_one_line(build, without, capfd):
    if host_machine() == "aarch64":
        pytest.skip("this machine needs none")
    without("linux-gnu-g++")
    code, output = build("arm64-executorch")
    assert code == 1
    assert not output.exists()
    last = capfd.readouterr().err.splitlines()[-1]
    assert "building for aarch64 needs aarch64-linux-gnu-g++ (Debian: apt install g++-aarch64-linux-gnu)" in last


def fetch():
    place = {"a/lib/x.so": "lib/x.so"}.get
    return cross.from_wheels("aarch64", {"a": "1"}, "a-1", place, "running it")


def test_files_of_a_wheel_are_kept(monkeypatch, tmp_path):
    """Those that are asked for; the second time nothing is downloaded."""
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path / "cache"))
    calls = []

    def download(command, **_):
        calls.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "a.whl", "w") as wheel:
            wheel.writestr("a/lib/x.so", b"x")
            wheel.writestr("a/other.py", b"")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", download)
    folder = fetch()
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == ["lib/x.so"]
    assert fetch() == folder
    assert len(calls) == 1
    assert "manylinux_2_28_aarch64" in calls[0] and "a==1" in calls[0]


def test_a_wheel_that_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(MissingDependencyError, match="running it needs the wheels of a for aarch64"):
        fetch()
    assert not list((tmp_path / "cache").iterdir())
