"""The options that commands share become one `StreamOptions`."""

import argparse

import pytest

from vmp_edge.cli.options import add_adaptive_options, add_window_options, stream_options
from vmp_edge.errors import UsageError
from vmp_edge.stream.governor import Budget
from vmp_edge.stream.motion import DEFAULT_THRESHOLD
from vmp_edge.stream.options import StreamOptions
from vmp_edge.stream.smoothing import Smoothing


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_window_options(parser)
    add_adaptive_options(parser)
    return stream_options(parser.parse_args(arguments))


def test_without_arguments_they_are_the_defaults():
    assert parse() == StreamOptions()


def test_every_argument_has_its_field():
    assert parse("--hop", "2", "--stride", "3", "--smoothing", "4", "--sampling", "motion") == StreamOptions(
        hop=2, stride=3, smoothing=Smoothing(windows=4.0), sampling="motion"
    )
    assert parse("--fps", "5", "--smoothing", "0") == StreamOptions(fps=5.0, smoothing=None)
    assert parse("--motion-gate").motion_gate == DEFAULT_THRESHOLD
    assert parse("--motion-gate", "7").motion_gate == 7.0
    assert parse("--budget-ms", "50").budget == Budget(latency=0.05)
    assert parse("--max-cpu", "50%").budget == parse("--max-cpu", "0.5").budget == Budget(cpu=0.5)


def test_values_out_of_range_are_refused():
    with pytest.raises(UsageError, match="smoothing"):
        parse("--smoothing", "-1")
    with pytest.raises(UsageError, match="budget"):
        parse("--budget-ms", "0")
