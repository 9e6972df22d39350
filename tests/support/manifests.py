"""Changes of manifests for tests that hold the readers of Python and C together."""

from __future__ import annotations

import random
import re

PIECES = (
    *"-:#[]{},'\"\\?&*!|>%@`~=\n\t\r\0é",
    *(" ", "  ", "    ", "\n\n", "\n  ", "\r\n", ": ", " #", "- ", "- - ", "---\n", "...\n", "? ", "<<: ", "key: "),
    *("null", "true", "yes", "1", "-1", "0x1", "01", "1.5", "1e5", "1e400", "9" * 20, ".inf", "1:30", "1_000"),
    *("''", "'it''s'", '"\\x41"', '"\\ud800"', '"\\U0001F600"', '"\\q"', '"x\\\n  y"', "[a, b]", "{a: 1}", "[a"),
    *("\U0001f600", "\u202e", "\ufeff", "\x85", "\u2028", "\x1b[31m"),
)
VALUES = (
    *("~", "true", "''", "0", "-1", "1", "2", "8", "16", "1.0", "1e1", "9" * 19, "9" * 30, "9" * 400, "0.0001", "1e-9"),
    *("1048577", "2147483648", ".nan", "0x10", "017", "190:20:30", "2001-01-01", "*a", "&a 1", "!!int 8", "!!bool x"),
    *("[]", "{}", "[1,2]", "[a, b]", "{a: b}", "{<<: 1}", "[" * 40 + "]" * 40, "'../x'", "'/etc/passwd'", "'a:b'"),
    *('"\\e[2J"', '"a\\nb"', '"\\0"', '"\\u202Eabc"', '"\\ud83d"', "' a'", "'a '", "' '", "'" + "a" * 300 + "'"),
    *("|\n  text", "x # y", "x: y", "manifest.yaml", "Model.json", "model.json", "any", "pdp11", "\ufeff8", "\uff18"),
)
KEYS = (
    *("format", "name", "model", "target", "machine", "engine", "precision", "input", "frames", "image_size", "labels"),
    *("frame_rate", "resize", "mean", "std", "interpolation", "program", "files", "size", "sha256", "threads", "soc"),
    *("sampling", "span", "rate", "states", "causal"),
    *("features", "gpu", "cpu_features", "libraries", "variants", "embedding", "tubelet_size", "patch_size", "tools"),
    *(
        "num_classes",
        "num_frames",
        "embed_dim",
        "projection",
        "parity",
        "accuracy",
        "architectures",
        "cuda",
        "device",
        "<<",
        "5",
        "~",
    ),
)
_ENTRY = re.compile(r"^( *(?:- )?)([\w.-]+):(.*)$")


def changed_text(text: str, randomness: random.Random) -> str:
    """Return a text with a few random changes of characters and lines."""
    for _ in range(randomness.choice((1, 1, 2, 3, 6))):
        begin = randomness.randrange(len(text) + 1)
        end = begin + randomness.choice((1, 1, 2, 8))
        kind = randomness.randrange(5)
        if kind < 2:
            text = text[:begin] + randomness.choice(PIECES) + text[begin:]
        elif kind == 2:
            text = text[:begin] + text[end:]
        elif kind == 3:
            text = text[:begin] + randomness.choice(PIECES) + text[end:]
        else:
            lines = text.split("\n")
            line = randomness.choice(lines)
            lines.insert(randomness.randrange(len(lines)), " " * randomness.choice((0, 1, 2, 4)) + line.lstrip())
            text = "\n".join(lines)
    return text


def changed_manifest(text: str, randomness: random.Random) -> str:
    """Return a manifest in which a few entries have other values or keys, are gone, or are there twice."""
    lines = text.splitlines()
    for _ in range(randomness.choice((1, 1, 1, 2, 3))):
        place = randomness.randrange(len(lines))
        line = lines[place]
        entry = _ENTRY.match(line)
        kind = randomness.randrange(8)
        if kind < 3:
            begin = f"{entry[1]}{entry[2]}: " if entry else line[: len(line) - len(line.lstrip(" -"))]
            lines[place] = begin + randomness.choice(VALUES)
        elif kind == 3 and len(lines) > 1:
            del lines[place]
        elif kind == 4:
            lines.insert(randomness.randrange(len(lines)), line)
        elif kind == 5 and entry:
            lines[place] = f"{entry[1]}{randomness.choice(KEYS)}:{entry[3]}"
        elif kind == 6:
            indent = entry[1].replace("-", " ") if entry else ""
            lines.insert(place, f"{indent}{randomness.choice(KEYS)}: {randomness.choice(VALUES)}")
        else:
            lines[place] = changed_text(line, randomness)
    return "\n".join(lines) + "\n"
