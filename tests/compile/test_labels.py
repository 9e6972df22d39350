"""Files of labels: how they may be written, and what is refused before a build begins."""

from pathlib import Path

import pytest

from vmp_edge.compile.labels import read_labels
from vmp_edge.errors import UsageError
from vmp_edge.names import cleaned, distinct


@pytest.fixture
def labels_of(tmp_path):
    """A function that writes bytes to a file and reads the labels from it."""

    def read(content):
        path = tmp_path / "labels.txt"
        path.write_bytes(content)
        return read_labels(path)

    return read


@pytest.mark.parametrize(
    "content",
    [
        b"one\ntwo\nthree\n",
        b"one\ntwo\nthree",
        b"one\r\ntwo\r\nthree\r\n",
        b"one\rtwo\rthree\r",
        b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\n",
        b"one\n  two\nthree\t\n\n\r\n \n",
        b"one\n\xc2\xa0two\nthree\n",
    ],
)
def test_marks_line_ends_and_blanks_do_no_harm(labels_of, content):
    assert labels_of(content) == ("one", "two", "three")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ncaf\xe9\n", "line 2 is not in UTF-8: save the file as UTF-8"),
        ("one\n".encode("utf-16"), "line 1 is not in UTF-8: save the file as UTF-8"),
        ("one\n".encode("utf-16-le"), r"line 1 is 'o\\x00n\\x00e\\x00', which cannot be a label: .* U\+0000"),
        (b"one\npan\0left\n", r"line 2 is 'pan\\x00left', which cannot be a label: it holds the character U\+0000"),
        (b"one\n\x1b[31mred\n", r"line 2 is '\\x1b\[31mred'"),
        ("one\n\u202etwo\n".encode(), r"line 2 is '\\u202etwo', .* U\+202E"),
        ("one\n\ufefftwo\n".encode(), r"line 2 is '\\ufefftwo', .* U\+FEFF"),
        ("one\ntwo\u2028three\n".encode(), r"U\+2028"),
        (b"one\ntwo\x85three\n", "not in UTF-8"),
        (b"x" * 257, "more than 256 characters"),
        (b"\n \n", "holds no labels"),
        (b"", "holds no labels"),
        (b"a\n" * 33_000, "there are 33000 labels; there can be at most 32768"),
        (b"a\n" * (9 << 20), "larger than 16 MiB"),
    ],
)
def test_what_cannot_be_labels_is_refused_in_one_line(labels_of, content, message):
    with pytest.raises(UsageError, match=message) as caught:
        labels_of(content)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match="cannot be read as a text file"):
            read_labels(Path(path))


def test_equal_labels_get_numbers_and_a_message_says_so(labels_of, capsys):
    assert labels_of(b"crane\nstork\ncrane\nmaillot\nmaillot\n") == (
        "crane",
        "stork",
        "crane (2)",
        "maillot",
        "maillot (2)",
    )
    assert capsys.readouterr().err.count("\n") == 1


def test_distinct_labels_take_no_name_that_is_there():
    assert distinct(["a", "a (2)", "a", "a"]) == ("a", "a (2)", "a (3)", "a (4)")
    assert distinct(["a", "b"]) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "name"),
    [("k400_\x1b[31m", "k400_[31m"), (" a ", "a"), ("\x07", "unnamed"), ("x" * 300, "x" * 256), ("\udce9", "unnamed")],
)
def test_a_name_is_made_of_what_a_name_may_have(text, name):
    assert cleaned(text) == name
