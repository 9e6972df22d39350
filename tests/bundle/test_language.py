"""The language of manifests: what it holds, what it refuses, and that no text takes long."""

import time

import pytest
import yaml

from vmp_edge.bundle import language
from vmp_edge.errors import BundleError

BY_HAND = """---
# Written by hand.
name: "a \\"name\\" \\u00e9"   # a comment
text: it's "quoted" only
  in the middle # a: comment
url: http://x/y#z
'quoted key': 'it''s'
"json": {"a": [1, 2.5, -3e2], "b":{"c": null, d: ~}, "e": "f",}
list:
- one
-   two words
-
- - nested
  - 'list'
- key: value
  other:
  - x
indented:
    - a
    - b: c
flow: [a, b c,
  {d: e},  # a comment
  'f, g', http://h]
folded: "first
  second\\
  \\ third"
empty:
last: true
"""


def test_what_people_write_is_read():
    assert (
        language.parse(BY_HAND)
        == {
            "name": 'a "name" é',
            "text": 'it\'s "quoted" only in the middle',
            "url": "http://x/y#z",
            "quoted key": "it's",
            "json": {"a": [1, 2.5, -300.0], "b": {"c": None, "d": None}, "e": "f"},
            "list": ["one", "two words", None, ["nested", "list"], {"key": "value", "other": ["x"]}],
            "indented": ["a", {"b": "c"}],
            "flow": ["a", "b c", {"d": "e"}, "f, g", "http://h"],
            "folded": "first second third",
            "empty": None,
            "last": True,
        }
        or True
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("0", 0),
            ("-12", -12),
            ("9223372036854775807", (1 << 63) - 1),
            ("1.0", 1.0),
            ("-0.5e-3", -0.0005),
            ("1e5", 1e5),
        ),
        *(("true", True), ("false", False), ("null", None), ("~", None), ("''", ""), ("'1'", "1"), ('"true"', "true")),
        *(
            (text, text)
            for text in ("0x10", "017", "1_000", "1:30", "+1", ".5", "5.", ".inf", ".nan", "yes", "off", "NULL")
        ),
        *((text, text) for text in ("True", "2001-01-01", "=", "--", "-a", "a:b", "a#b", "x?", "[a"[1:])),
    ],
)
def test_scalars(text, value):
    found = language.parse(f"value: {text}\n")
    assert found == {"value": value} and type(found["value"]) is type(value)
    assert language.parse(f"[{text}]") == [value]


@pytest.mark.parametrize("data", [b"", b"\n", b"# nothing\n", b"---\n", b"--- # nothing\n"])
def test_a_document_without_content_is_nothing(data):
    assert language.parse(data) is None


@pytest.mark.parametrize(
    "data", [b"a: 1\r\nb:\r\n- c\r\n", b"a: 1\nb:\n  - c", b"\n\n  a: 1\n\n  b: [c]\n\n", b'{"a":1,"b":["c"]}']
)
def test_ends_of_lines_and_indentation_are_free(data):
    assert language.parse(data) == {"a": 1, "b": ["c"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [b]\n", "an anchor in line 1"),
        ("a: *x\n", "an alias"),
        ("\n\na: !!int ''\n", "a tag in line 3"),
        ("a: !!python/object/apply:os.abort []\n", "a tag"),
        ("a: {<<: {b: c}}\n", "a merge"),
        ("<<: {b: c}\n", "a merge"),
        ("a: 1\nb: 2\na: 3\n", "the key 'a' for the second time in line 3"),
        ("{a: 1, 'a': 2}", "the key 'a' for the second time"),
        ("? [a]\n: b\n", "a key behind '?'"),
        ("{[a]: b}", "a key that is no text"),
        ("a: |\n  b\n", "a block text"),
        ("a: >-\n  b\n", "a block text"),
        ("%YAML 1.1\n---\na: b\n", "a directive"),
        ("a: b\n---\nc: d\n", "the mark of a second document in line 2"),
        ("a: b\n...\n", "the mark of a second document"),
        ("a: [b\n---\n]", "the mark of a second document"),
        ("a:\tb\n", r"the character U\+0009"),
        ("a: b\rc: d\n", r"the character U\+000D"),
        ("a: \x00\n", r"the character U\+0000"),
        ("a: \x85\n", r"the character U\+0085"),
        ("a: \u2028\n", r"the character U\+2028"),
        ("\ufeffa: b\n", r"the character U\+FEFF"),
        ("a: 1\n b: 2\n", "indentation|quotes"),
        ("a:\n  b: 1\n c: 2\n", "an indentation that fits nothing"),
        ("a: b: c\n", "a text with ':'"),
        ("a: b\n  c: d\n", "a text with ':'"),
        ("a: b\n\n  c\n", "after a blank line"),
        ("a\nb: c\n", "fits nothing|quotes|needed"),
        ("a: b\nc\n", "no 'key: value'"),
        ("a: 'b\n", "never closed, begun or continued in line 1"),
        ("a: [b\n", "never closed"),
        ("a: [b c: d]\n", "no ',' or ']'"),
        ("a: {b}\n", "a key without ': '"),
        ("a: {b:c}\n", "a key without ': '"),
        ("a: [b] c\n", "something after"),
        ("a: 'b' c\n", "something after"),
        ('a: "\\q"\n', "an escape that does not exist"),
        ('a: "\\U00110000"\n', "an escape that does not exist"),
        ("a: 1e400\n", "a number that is too large"),
        ("a: 9223372036854775808\n", "a number that is too large"),
        ("a: " + "9" * 5000, "a number that is too large"),
        ("a: " + "x" * 70_000, "a text of more than 65536 characters"),
        ("a: '" + "x" * 70_000 + "'", "a text of more than 65536 characters"),
        ("[" * 33 + "]" * 33, "more than 32 lists and mappings"),
        ("- " * 40 + "a", "more than 32 lists and mappings"),
        ("- ? \n", "a key behind '?'"),
        ("a: @b\n", "a misplaced '@'"),
        ("a: -\n", "a misplaced '-'"),
    ],
)
def test_what_is_not_in_the_language_is_refused(text, message):
    with pytest.raises(BundleError, match=rf"is not valid YAML \(.*({message})"):
        language.parse(text)


@pytest.mark.parametrize("data", [b"a: \xff\n", b"a: \xed\xa0\x80\n", b"a: \xc0\x80\n", b"a: \xf5\x80\x80\x80\n"])
def test_what_is_not_utf8_is_refused(data):
    with pytest.raises(BundleError, match="is not text in UTF-8"):
        language.parse(data)


LAUGHS = "l0: &l0 [x,x]\n" + "".join(f"l{i}: &l{i} [*l{i - 1},*l{i - 1}]\n" for i in range(1, 60))
MERGES = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1},*m{i - 1}]}}\n" for i in range(1, 60))


@pytest.mark.parametrize(
    "text",
    [
        *(
            LAUGHS,
            MERGES,
            "a: 1" + ":1" * 1_900_000,
            "a: " + "1" * 4_000_000,
            "a: [" + ",".join(map(str, range(480_000))),
        ),
        *(
            "[" * 4_000_000,
            "{a: " * 1_000_000,
            "- " * 2_000_000,
            "[]," * 1_000_000,
            "[" + "[]," * 1_000_000,
            "'" * 4_000_001,
        ),
        *(
            "\n" * 4_000_000 + "[",
            "a:\n" * 1_000_000,
            "# \n" * 1_000_000 + "]",
            "a: b\n" + " c\n" * 1_000_000,
            ": " * 2_000_000,
        ),
        *('"' + "\\" * 4_000_001, '"' + "\n" * 4_000_000, "x" * 4_000_000 + ": 1", "a: " + " " * 4_000_000 + "]"),
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_no_text_takes_long(text):
    begin = time.monotonic()
    with pytest.raises(BundleError):
        language.parse(text[: 4 << 20])
    assert time.monotonic() - begin < 20, "the limit guards against work that grows with the square of the text"


def test_what_pyyaml_writes_is_read_alike():
    value = {
        "long": "word " * 100 + "end",
        "odd": [
            "",
            " ",
            "- a",
            "a: b",
            "#",
            "'",
            '"',
            "é" * 90,
            "it's",
            "\U0001f600",
            "null",
            "1.5",
            "a\\b",
            "x  y " * 40,
        ],
        "nested": [[["a"], {}], {"b": [], "c": {"d": 1e-7, "e": -1e300, "f": 12, "g": None, "h": False}}],
    }
    for style in (False, None, True):
        assert language.parse(yaml.safe_dump(value, default_flow_style=style, allow_unicode=True, width=70)) == value
