"""Texts become the tokens that BERT's own tokenizer makes of them."""

import pytest

from vmp_edge.errors import UsageError
from vmp_edge.videotext.wordpiece import WordPiece

TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "wave", "waves", "##s", "un", "##aff", "##able", "cafe"),
    *("!", "[", "]", "mask", "中", "文", "$", "##a", "##b", "35"),
)


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a wave", ["a", "wave"]),
        ("WAVES waves wavess", ["waves", "waves", "waves", "##s"]),
        ("unaffable", ["un", "##aff", "##able"]),
        ("unaffableq", ["[UNK]"]),
        ("Café!", ["cafe", "!"]),
        ("[MASK]", ["[", "mask", "]"]),
        ("a中文a", ["a", "中", "文", "a"]),
        ("a\x00b \ufffd\u200d\t\u3000wave\n", ["a", "##b", "wave"]),
        ("a$35", ["a", "$", "35"]),
        ("a" * 101, ["[UNK]"]),
        ("a" * 100, ["a", *["##a"] * 99]),
        ("", []),
    ],
)
def test_tokens(vocabulary, text, expected):
    pieces = WordPiece.load(vocabulary)
    assert len(pieces) == len(TOKENS)
    assert [TOKENS[number] for number in pieces.ids(text, 200)] == ["[CLS]", *expected, "[SEP]"]


def test_long_texts_are_cut(vocabulary):
    ids = WordPiece.load(vocabulary / "vocab.txt").ids("a wave " * 40, 32)
    assert len(ids) == 32 and [TOKENS[ids[0]], TOKENS[ids[-2]], TOKENS[ids[-1]]] == ["[CLS]", "wave", "[SEP]"]


def test_what_is_no_vocabulary_is_one_line(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match=r"vocab.txt: the vocabulary lacks \[CLS\], \[SEP\], \[UNK\]"):
        WordPiece.load(tmp_path)
    with pytest.raises(UsageError, match="cannot be read as a vocabulary with a token a line"):
        WordPiece.load(tmp_path / "none")
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read as a vocabulary"):
        WordPiece.load(tmp_path)


def test_the_whole_of_berts_own_agrees():
    """Random texts of several scripts; letters that Unicode has changed since BERT are not among them."""
    tokenizers = pytest.importorskip(
        "tokenizers", reason="compares with the package `tokenizers`, where it is installed"
    )
    import random

    numbers = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    syllables = {
        numbers.choice(["", "##"]) + "".join(numbers.choices(letters, k=numbers.randint(2, 4))) for _ in range(2000)
    }
    tokens = dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    )
    vocabulary = {
        token: number
        for number, token in enumerate([*tokens, *"0123456789!$%&@[]_-/.,'中文日本語ß", *sorted(syllables)])
    }
    theirs = tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True)
    ours = WordPiece(vocabulary)
    pool = (
        letters * 3
        + "  -./,'!@%&_$[]ABCÀÉñİ\u017fς\u03a3\u0131ß中文日本語\t\n\u3000\xa0\u200b\ufeff\ufffd\x07«»—\u2019¿÷^`~|<>=+€"
    )
    for _ in range(3000):
        text = "".join(numbers.choices(pool, k=numbers.randint(0, 60)))
        assert ours.ids(text, 1000) == theirs.encode(text).ids, ascii(text)
