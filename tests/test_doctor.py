"""What `vmp-edge doctor` says of machines and bundles."""

import json

import pytest
from bundles import make_manifest, write_bundle

from vmp_edge import doctor
from vmp_edge.cli import main


def report(capsys, *arguments):
    code = main(["doctor", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_what_a_machine_lacks_is_no_failure(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "CAMERAS", tmp_path)
    (tmp_path / "video3").touch()
    code, told = report(capsys)
    assert (code, told["missing"], told["bundle"]) == (0, [], [])
    subjects = {finding["subject"]: finding for finding in told["machine"]}
    assert {"machine", "numpy", "GPU", "GStreamer"} <= set(subjects)
    assert subjects["cameras"]["text"] == "video3"
    assert all(finding["found"] is None for finding in told["machine"])


def test_a_bundle_that_runs_here_lacks_nothing(capsys, tmp_path):
    path = write_bundle(tmp_path / "bundle", make_manifest(libraries=("libc.so.6",)))
    code, told = report(capsys, path)
    assert (code, told["missing"]) == (0, [])
    assert [finding["subject"] for finding in told["bundle"]] == ["files", "machine", "libc.so.6", "engine brightness"]
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
def test_what_is_missing_is_named(capsys, tmp_path, changes, subject, text):
    path = write_bundle(tmp_path / "bundle", make_manifest(**changes))
    code, told = report(capsys, path)
    assert (code, told["missing"]) == (1, [subject])
    assert text in next(finding["text"] for finding in told["bundle"] if finding["subject"] == subject)
    assert main(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"MISSING  {subject}: " in out
    assert out.endswith("1 missing\n")


def test_a_damaged_bundle_is_one_line(capsys, tmp_path):
    path = write_bundle(tmp_path / "bundle")
    (path / "model.json").write_text("{}")
    assert main(["doctor", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
