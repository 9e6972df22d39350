"""What all commands have in common: help, exit codes, and one line for each failure."""

import importlib.util
import subprocess
import sys

import pytest
from brightness_engine import BrightnessEngine
from commands import last_json, run

from vmp_edge.cli import COMMANDS, main


def test_help_and_version(capsys):
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(f"usage: vmp-edge {command}" in out for command in COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["run"], ["bench", "b", "--windows", "many"]])
def test_wrong_usage_is_2(capsys, arguments):
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "bench", "verify", "info"])
def test_no_bundle_is_1_and_one_line(capsys, tmp_path, command):
    code, out, err = run(capsys, command, tmp_path / "nothing")
    assert code == 1 and out == []
    assert [line for line in err if line.startswith("vmp-edge: ")] == err[-1:] and "does not exist" in err[-1]
    code, out, err = run(capsys, command, tmp_path / "nothing", "--json")
    assert code == 1 and last_json(out)["error"] in err[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--hop", "0"],
        ["run", "--fps", "-1"],
        ["run", "--stride", "0"],
        ["run", "--threads", "0"],
        ["run", "--max-frames", "0"],
        ["run", "--duration", "0"],
        ["run", "--smoothing", "-1"],
        ["run", "--record", "a.gif"],
        ["run", "--top", "0"],
        ["bench", "--windows", "0"],
        ["bench", "--hop", "0"],
    ],
)
def test_options_out_of_range_are_2_and_one_line(capsys, bundle, video, arguments):
    command, *options = arguments
    source = ["--source", video, "--headless"] if command == "run" else []
    code, out, err = run(capsys, command, bundle, *source, *options)
    assert code == 2 and out == [] and err[-1].startswith("vmp-edge: ")


def test_a_bug_is_not_swallowed(capsys, bundle, monkeypatch):
    monkeypatch.setattr(BrightnessEngine, "run", lambda self, video: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["verify", str(bundle)])


def test_python_m_vmp_edge_is_the_command_line():
    assert importlib.util.find_spec("vmp_edge.__main__") is not None
    process = subprocess.run(
        [sys.executable, "-m", "vmp_edge", "--version"], capture_output=True, text=True, check=True
    )
    assert process.stdout.startswith("vmp-edge ")
