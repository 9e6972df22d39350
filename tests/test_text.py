"""Text from outside is printed without characters that a terminal obeys, and JSON stays strict."""

import json

import pytest

from vmp_edge.text import json_line, printable

ODD = {
    "escape": ("red\x1b[31m", r"red\x1b[31m"),
    "newline": ("a\nvmp-edge: all is well\r", r"a\nvmp-edge: all is well\r"),
    "nul and bell": ("a\0b\a", r"a\x00b\x07"),
    "C1 control": ("a\x9b31m", r"a\x9b31m"),
    "direction": ("\u202etfel\u202c \u2067x\u2069 \u200fy\u061c", r"\u202etfel\u202c \u2067x\u2069 \u200fy\u061c"),
    "line separator": ("a\u2028b\u2029", r"a\u2028b\u2029"),
    "byte order mark": ("\ufeffstill", r"\ufeffstill"),
    "lone surrogate": ("caf\udce9.mp4", r"caf\xe9.mp4"),
    "tag": ("x\U000e0041", r"x\U000e0041"),
}
GOOD = [
    "pan-left",
    "静止",
    "Türöffnung",
    "فتح الباب",
    "नमस्ते",
    "می\u200cخواهم",  # noqa: RUF001
    "👨\u200d👩\u200d👧",
    "全角\u3000空白",
    "a\xa0b",
    r"C:\clips",
]


@pytest.mark.parametrize(("text", "shown"), ODD.values(), ids=ODD)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown
    line = json_line({text: [text]})
    assert json.loads(line) == {text: [text]}
    line.encode()
    assert printable(line) == line


@pytest.mark.parametrize("text", GOOD)
def test_words_of_all_languages_stay_as_they_are(text):
    assert printable(text) == text
    assert text.replace("\\", "\\\\") in json_line({"label": text})


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16", "no such encoding"])
def test_json_keeps_to_the_characters_of_an_encoding(encoding):
    value = {"labels": [*GOOD, *(text for text, _ in ODD.values())]}
    line = json_line(value, encoding)
    assert json.loads(line) == value
    line.encode("utf-8" if encoding.startswith("no") else encoding)


def test_numbers_that_json_does_not_have_are_null():
    value = {"score": float("nan"), "more": [(float("inf"), 1.5)], "none": None}
    assert json_line(value) == '{"score": null, "more": [[null, 1.5]], "none": null}'
