"""The report of `vmp-edge doctor` on machines and bundles."""

import json

import pytest
from bundles import make_manifest, write_bundle

from vmp_edge import doctor
from vmp_edge.cli import main


def run_doctor(capsys, *arguments):
    """Return the exit code and the JSON report."""
    code = main(["doctor", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_nothing_that_a_machine_lacks_is_a_failure(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CAMERAS", tmp_path)
    (tmp_path / "video3").touch()
    code, report = run_doctor(capsys)
    assert (code, report["missing"], report["bundle"]) == (0, [], [])
    subjects = {finding["subject"]: finding for finding in report["machine"]}
    assert {"machine", "numpy", "GPU", "GStreamer"} <= set(subjects)
    assert subjects["cameras"]["text"] == "video3"
    assert all(finding["found"] is None for finding in report["machine"])


def test_a_bundle_that_runs_here_lacks_nothing(capsys, tmp_path):
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
def test_a_missing_part_is_named(capsys, tmp_path, changes, subject, text):
    path = write_bundle(tmp_path / "bundle", make_manifest(**changes))
    code, report = run_doctor(capsys, path)
    assert (code, report["missing"]) == (1, [subject])
    assert text in next(finding["text"] for finding in report["bundle"] if finding["subject"] == subject)
    assert main(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"MISSING  {subject}: " in out
    assert out.endswith("1 missing\n")


def test_a_damaged_bundle_is_a_one_line_error(capsys, tmp_path):
    path = write_bundle(tmp_path / "bundle")
    (path / "model.json").write_text("{}")
    assert main(["doctor", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
