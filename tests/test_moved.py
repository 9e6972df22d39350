"""Modules that moved can still be imported by their old names."""

import importlib

import pytest

from vmp_edge._moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_the_module_in_its_new_place(old):
    new_name = f"vmp_edge.{MOVED[old]}"
    expected = importlib.import_module(new_name)
    with pytest.warns(DeprecationWarning, match=new_name):
        module = importlib.import_module(f"vmp_edge.{old}")
    assert module is expected
    assert module.__spec__.name == new_name


def test_packages_offer_the_names_that_they_had_as_modules():
    from vmp_edge.bundle import Bundle, Manifest, check_clip, host_machine, staged_bundle
    from vmp_edge.events import Event, EventDetector, EventRule
    from vmp_edge.stream import Statistics, Stream

    assert all((Bundle, Manifest, check_clip, host_machine, staged_bundle, Event, EventDetector, EventRule))
    assert Stream.statistics.__annotations__["return"] == Statistics.__name__
