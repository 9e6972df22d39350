"""Texts become the tokens of a vocabulary, which is a file, a folder, or lies on the hub."""

import pytest

from tests.support import hub_server
from vmp_edge.errors import UsageError

pytest.importorskip("transformers", reason="needs the extra `text`")

from vmp_edge.videotext import tokenizer

TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "wave", "waves", "##s", "un", "##aff", "##able", "cafe"),
    *("!", "[", "]", "mask", "中", "文", "$", "##a", "##b", "35"),
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    return tmp_path


def tokens_of(pieces, text, length=200):
    return [TOKENS[number] for number in pieces(text, truncation=True, max_length=length)["input_ids"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a wave", ["a", "wave"]),
        ("WAVES waves wavess", ["waves", "waves", "waves", "##s"]),
        ("unaffable", ["un", "##aff", "##able"]),
        ("unaffableq", ["[UNK]"]),
        ("Café!", ["cafe", "!"]),
        ("[mask]", ["[", "mask", "]"]),
        ("a中文a", ["a", "中", "文", "a"]),
        ("a\x00b \ufffd\u200d\t\u3000wave\n", ["a", "##b", "wave"]),
        ("a$35", ["a", "$", "35"]),
        ("a" * 101, ["[UNK]"]),
        ("a" * 100, ["a", *["##a"] * 99]),
        ("", []),
    ],
)
def test_tokens(folder, text, expected):
    pieces = tokenizer.load(folder)
    assert tokenizer.size(pieces) == len(TOKENS)
    assert tokens_of(pieces, text) == ["[CLS]", *expected, "[SEP]"]


def test_long_texts_are_cut(folder):
    tokens = tokens_of(tokenizer.load(folder / "vocab.txt"), "a wave " * 40, 32)
    assert len(tokens) == 32 and [tokens[0], tokens[-2], tokens[-1]] == ["[CLS]", "wave", "[SEP]"]


def test_lines_may_end_as_on_windows_and_a_token_may_be_missing_that_no_text_needs(folder):
    (folder / "vocab.txt").write_bytes("\r\n".join(TOKENS[:4] + TOKENS[5:]).encode())
    pieces = tokenizer.load(folder)
    assert tokenizer.size(pieces) == len(TOKENS) - 1  # without the one that the library adds
    assert pieces("a waves")["input_ids"] == [2, 4, 6, 3]


@pytest.mark.parametrize("place", ["saved", "saved/tokenizer.json"])
def test_what_transformers_saves_is_read(folder, place):
    tokenizer.load(folder).save_pretrained(folder / "saved")
    pieces = tokenizer.load(folder / place)
    assert tokenizer.size(pieces) == len(TOKENS) and tokens_of(pieces, "waves") == ["[CLS]", "waves", "[SEP]"]


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_files_of_the_hub(folder, file, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="needs the extra `compile`")
    tokenizer.load(folder).save_pretrained(folder)
    monkeypatch.setenv("VMP_EDGE_CACHE", str(folder / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    with hub_server.serve(hub_server.Hub({f"owner/name/{file}": (folder / file).read_bytes()})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        pieces = tokenizer.load(f"hf://owner/name/{file}")
    assert tokens_of(pieces, "a wave") == ["[CLS]", "a", "wave", "[SEP]"]


def test_what_is_no_vocabulary_is_one_line(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("a\nb\n")
    with pytest.raises(UsageError, match=r"vocab.txt: the vocabulary lacks \[CLS\], \[SEP\], \[UNK\], \[PAD\]"):
        tokenizer.load(tmp_path)
    path.write_text("")
    with pytest.raises(UsageError, match=r"vocab.txt: the vocabulary lacks \[CLS\]"):
        tokenizer.load(tmp_path)
    with pytest.raises(UsageError, match="cannot be read as a vocabulary with a token a line"):
        tokenizer.load(tmp_path / "none")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read as a vocabulary"):
        tokenizer.load(tmp_path)
    with path.open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(UsageError, match="is larger than 64 MiB: it is no vocabulary"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"model": 3}', "[]"])
def test_a_damaged_tokenizer_is_one_line(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UsageError, match=r"tokenizer.json: cannot be read as a tokenizer of BERT") as error:
        tokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


def test_the_tokenizer_of_another_model_is_refused(folder):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE({"a": 0, "b": 1}, [])).save(str(folder / "tokenizer.json"))
    with pytest.raises(UsageError, match=r"tokenizer.json: (the vocabulary lacks \[CLS\]|cannot be read)"):
        tokenizer.load(folder / "tokenizer.json")
