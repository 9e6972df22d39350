"""Bring texts into the form in which the published video-text models saw them, and fill in prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import UsageError

# The prompts that the published code has for the classes of Kinetics (VideoMamba, video_mm).
PUBLISHED_PROMPTS = (
    "a photo of action {}",
    "a picture of action {}",
    "Human action of {}",
    "{}, an action",
    "{} this is an action",
    "{}, a video of action",
    "Playing action of {}",
    "{}",
    "Playing a kind of action, {}",
    "Doing a kind of action, {}",
    "Look, the human is {}",
    "Can you recognize the action of {}?",
    "Video classification of {}",
    "A video of {}",
    "The man is {}",
    "The woman is {}",
)
PLAIN = ("{}",)
_DELETED = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~"), "-": " ", "/": " "})


def cleaned(text: str) -> str:
    """Return a text as the published code cleans it before it is cut into tokens (VideoMamba, video_mm)."""
    text = text.lower().translate(_DELETED).replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")


def filled_in(prompts: Sequence[str], name: str) -> list[str]:
    """Return the prompts with a name in the place of ``{}``, cleaned.

    Raises:
        UsageError: A prompt has no ``{}``, or nothing is left of a text.
    """
    texts = []
    for prompt in prompts:
        if "{}" not in prompt:
            raise UsageError(f"the prompt {prompt!r:.80} has no {{}} in the place of the name")
        texts.append(cleaned(prompt.replace("{}", name)))
    if not cleaned(name) or not all(texts):
        raise UsageError(f"nothing is left of the text {name!r:.80} without its punctuation")
    return texts
