"""What was imported by a name that a module had before it moved is still found by that name."""

import importlib

import pytest

from vmp_edge._moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_the_module_in_its_new_place(old):
    new = f"vmp_edge.{MOVED[old]}"
    expected = importlib.import_module(new)
    with pytest.warns(DeprecationWarning, match=new):
        module = importlib.import_module(f"vmp_edge.{old}")
    assert module is expected
    assert module.__spec__.name == new


def test_names_that_packages_had_as_modules_are_theirs():
    from vmp_edge.bundle import Bundle, Manifest, check_clip, host_machine, staged_bundle
    from vmp_edge.events import Event, EventDetector, EventRule
    from vmp_edge.stream import Statistics, Stream

    assert all((Bundle, Manifest, check_clip, host_machine, staged_bundle, Event, EventDetector, EventRule))
    assert Stream.statistics.__annotations__["return"] == Statistics.__name__
