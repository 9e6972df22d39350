"""What becomes of a class when its clips are mirrored: left becomes right."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words that change places. The longer one of two that contain each other comes first.
_SIDES = (
    ("left", "right"),
    ("counterclockwise", "clockwise"),
    ("links", "rechts"),
    ("gauche", "droite"),
    ("izquierda", "derecha"),
    ("sinistra", "destra"),
    ("l", "r"),
)
_SHORT = 2  # letters up to which a side must be a word of its own


def mirrored(labels: Sequence[str]) -> list[int | None]:
    """Return what each class is in the mirror, by the words for sides in its name.

    Args:
        labels: Names of the classes.

    Returns:
        For each class the index of the class that its mirrored clips show: its own if the name tells no side, that of
        ``swipe right`` for ``swipe left``, or None if there is no class for the other side.
    """
    places = {_plain(label): index for index, label in enumerate(labels)}
    return [_image(_plain(label), places, index) for index, label in enumerate(labels)]


def _image(name: str, places: dict[str, int], own: int) -> int | None:
    tells_side = False
    for sides in _SIDES:
        short = len(sides[0]) <= _SHORT
        other = _swap(name, sides, whole_words=short)
        if other != name and other in places:
            return places[other]
        tells_side = tells_side or _swap(name, sides, whole_words=True) != name
    return None if tells_side else own


def _swap(name: str, sides: tuple[str, str], whole_words: bool) -> str:
    """Exchange two words in a name."""
    either = "|".join(sides)
    pattern = rf"\b(?:{either})\b" if whole_words else either
    return re.sub(pattern, lambda found: sides[found[0] == sides[0]], name)


def _plain(label: str) -> str:
    """Return a label as lower-case words: ``turnLeft`` and ``turn_left`` become ``turn left``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    words = re.sub(r"[\W_]+", " ", words).lower().strip()
    return re.sub(r"\b(?:counter|anti) ?clockwise\b", "counterclockwise", words)
