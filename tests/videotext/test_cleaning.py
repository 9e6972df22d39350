"""Texts are cleaned as the published code cleans them."""

import pytest

from vmp_edge.errors import UsageError
from vmp_edge.videotext.cleaning import PUBLISHED_PROMPTS, cleaned, filled_in

CASES = (  # of the published code
    ("Riding a Bike", "riding a bike"),
    ("Can you recognize the action of tai-chi?", "can you recognize the action of tai chi"),
    ("person's  dog / cat", "persons dog cat"),
    ("  Two   spaces ", "two spaces"),
    ("<person> walks", "person walks"),
    ("hello.\n", "hello"),
    ('A/B-C: d; (e) ~f #g *h "i"', "a b c d e f g h i"),
    ("naïve café — 'quoted'!", "naïve café — quoted"),
    ("", ""),
    ("tab\tand  newline\n\nend", "tab\tand newline end"),
    ("3.5 km @ 10% & co_op", "35 km @ 10% & co_op"),
    ("...", ""),
)


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_cleaning(text, expected):
    assert cleaned(text) == expected


def test_prompts_are_filled_in_before_the_cleaning():
    assert filled_in(("{}, an action", "A video of {}"), "Tai-Chi") == ["tai chi an action", "a video of tai chi"]
    assert len(filled_in(PUBLISHED_PROMPTS, "waving")) == 16
    with pytest.raises(UsageError, match=r"has no {} in the place of the name"):
        filled_in(("a video",), "waving")
    with pytest.raises(UsageError, match=r"nothing is left of the text '...'"):
        filled_in(("A video of {}",), "...")
