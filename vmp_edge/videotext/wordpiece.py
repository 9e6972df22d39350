"""WordPiece, by which BERT cuts lower-case texts into tokens (Devlin et al. 2018, arXiv 1810.04805).

It is written here because the whole of it is small, and the package `transformers`, which has it too, is large. It was
compared with the package `tokenizers` on random texts of all scripts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from .. import zoo
from ..errors import UsageError
from ..zoo import Address
from ..zoo.hub import SCHEME

DEFAULT = f"{SCHEME}google-bert/bert-base-uncased/vocab.txt"
FILE = "vocab.txt"
_LONGEST_WORD = 100  # characters; longer words are unknown
_MOST_BYTES = 64 << 20
# CJK characters are words of their own. The ranges are those of BERT.
_CJK = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordPiece:
    """Cuts texts into tokens of a vocabulary.

    Args:
        vocabulary: The number of each token. Tokens inside a word begin with ``##``.

    Raises:
        UsageError: A token that every text needs is missing.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        if missing := [token for token in ("[CLS]", "[SEP]", "[UNK]") if token not in vocabulary]:
            raise UsageError(f"the vocabulary lacks {', '.join(missing)}: it is not one of BERT")
        self._vocabulary = vocabulary
        self._first, self._last, self._unknown = (vocabulary[token] for token in ("[CLS]", "[SEP]", "[UNK]"))

    @classmethod
    def load(cls, place: str | Path) -> WordPiece:
        """Read a vocabulary: a file with a token a line, the folder of its ``vocab.txt``, or a file on the hub.

        Raises:
            UsageError: It cannot be read, or is no vocabulary of BERT.
            HubError: It cannot be fetched.
        """
        text = str(place)
        path = zoo.fetch(Address.parse(text)) if text.startswith(SCHEME) else Path(place)
        if path.is_dir():
            path /= FILE
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise UsageError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB: it is no vocabulary")
            lines = path.read_text("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path}: cannot be read as a vocabulary with a token a line, as vocab.txt of BERT ({error})"
            ) from error
        tokens = [line.rstrip("\r") for line in (lines[:-1] if lines and not lines[-1] else lines)]
        try:
            return cls({token: number for number, token in enumerate(tokens)})
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    def __len__(self) -> int:
        """Return the number of tokens in the vocabulary."""
        return max(self._vocabulary.values()) + 1

    def ids(self, text: str, length: int) -> list[int]:
        """Return the numbers of a text's tokens between those of its beginning and its end, cut to a length."""
        inner = [number for word in _words(text) for number in self._pieces(word)]
        return [self._first, *inner[: length - 2], self._last]

    def _pieces(self, word: str) -> list[int]:
        """Return the numbers of the longest tokens that make up a word, or that of the unknown token."""
        if len(word) > _LONGEST_WORD:
            return [self._unknown]
        numbers, start = [], 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._vocabulary), None)
            if end is None:
                return [self._unknown]
            numbers.append(self._vocabulary[mark + word[start:end]])
            start = end
        return numbers


def _words(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, in lower case and without accents."""
    spaced = "".join(_spaced(letter) for letter in text)
    plain = unicodedata.normalize("NFD", spaced)
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn").lower()
    return "".join(f" {letter} " if _is_mark(letter) else letter for letter in plain).split()


def _spaced(letter: str) -> str:
    """Return a character as it counts: blanks as a space, CJK characters between spaces, control characters not."""
    if letter in "\t\n\r" or unicodedata.category(letter) == "Zs":
        return " "
    if letter == "\ufffd" or unicodedata.category(letter).startswith("C"):
        return ""
    return f" {letter} " if any(first <= ord(letter) <= last for first, last in _CJK) else letter


def _is_mark(letter: str) -> bool:
    """Return whether a character is punctuation; BERT counts all ASCII characters that are no letters or digits."""
    return ("!" <= letter <= "~" and not letter.isalnum()) or unicodedata.category(letter).startswith("P")
