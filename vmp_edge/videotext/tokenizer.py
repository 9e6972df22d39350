"""BERT's tokenizer, by the package `transformers`, from a vocabulary on this machine or on the hub."""

from __future__ import annotations

from pathlib import Path

from transformers import BertTokenizerFast

from .. import zoo
from ..errors import UsageError
from ..zoo import Address
from ..zoo.hub import SCHEME

DEFAULT = f"{SCHEME}google-bert/bert-base-uncased/vocab.txt"
VOCABULARY = "vocab.txt"
SAVED = "tokenizer.json"  # as transformers saves a tokenizer
_NEEDED = ("[CLS]", "[SEP]", "[UNK]", "[PAD]")
_MOST_BYTES = 64 << 20


def load(place: str | Path = DEFAULT) -> BertTokenizerFast:
    """Load a tokenizer.

    Args:
        place: A ``vocab.txt`` with a token a line, a ``tokenizer.json``, a folder with one of them, or such a file on
            the hub.

    Raises:
        UsageError: It cannot be read, or is none of BERT.
        HubError: It cannot be fetched.
    """
    text = str(place)
    path = zoo.fetch(Address.parse(text)) if text.startswith(SCHEME) else Path(place)
    if path.is_dir():
        path /= SAVED if (path / SAVED).is_file() and not (path / VOCABULARY).is_file() else VOCABULARY
    if path.name == SAVED:
        tokenizer = _saved(path)
        _require(_own(tokenizer), path)
        return tokenizer
    vocabulary = _vocabulary(path)
    _require(vocabulary, path)
    return BertTokenizerFast(vocabulary, do_lower_case=True)


def size(tokenizer: BertTokenizerFast) -> int:
    """Return how many tokens an encoder has to know for a tokenizer's numbers."""
    return 1 + max(_own(tokenizer).values())


def _vocabulary(path: Path) -> dict[str, int]:
    """Return the number of each token of a text file with a token a line."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB: it is no vocabulary")
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot be read as a vocabulary with a token a line, as vocab.txt of BERT ({error})"
        ) from error
    tokens = [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]
    return {token: number for number, token in enumerate(tokens)}


def _saved(path: Path) -> BertTokenizerFast:
    """Read a tokenizer that transformers has saved."""
    try:
        # The folder is given, as the library takes no such file alone. It asks nothing of the hub.
        return BertTokenizerFast.from_pretrained(str(path.parent), local_files_only=True)
    except Exception as error:  # which one depends on the damage
        raise UsageError(f"{path}: cannot be read as a tokenizer of BERT ({error!r:.200})") from error


def _require(vocabulary: dict[str, int], path: Path) -> None:
    """Check that a vocabulary has the tokens that every text needs: the library adds new ones in their place."""
    if missing := [token for token in _NEEDED if token not in vocabulary]:
        raise UsageError(f"{path}: the vocabulary lacks {', '.join(missing)}: it is not one of BERT")


def _own(tokenizer: BertTokenizerFast) -> dict[str, int]:
    """Return a tokenizer's vocabulary without the tokens that the library has added to it."""
    vocabulary: dict[str, int] = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    return vocabulary
