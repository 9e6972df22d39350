"""A place for results is checked before the work on them."""

import os

import pytest

from vmp_edge.errors import UsageError
from vmp_edge.files import check_writable, make_output_folder


def test_a_place_for_a_file(tmp_path):
    check_writable(tmp_path / "new.html", "the report")
    (tmp_path / "old.html").touch()
    check_writable(tmp_path / "old.html", "the report")
    with pytest.raises(UsageError, match=r"the report cannot be written to .*, which is a folder"):
        check_writable(tmp_path, "the report")
    with pytest.raises(UsageError, match=r"the folder .*none does not exist"):
        check_writable(tmp_path / "none" / "new.html", "the report")
    with pytest.raises(UsageError, match=r"the folder .* does not exist"):
        check_writable(tmp_path / "old.html" / "new.html", "the report")


def test_write_protection_is_known_before(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="is write-protected"):
        check_writable(tmp_path / "new.html", "the report")


def test_an_output_folder_is_made(tmp_path):
    make_output_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(UsageError, match="cannot be the output folder"):
            make_output_folder(path)
