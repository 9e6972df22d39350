"""Long work is never silent: a line that is kept up to date on a terminal, a line from time to time elsewhere."""

import contextlib
import gc
import io
import os
import re
import sys
import threading
import time

import pytest

from vmp_edge import progress
from vmp_edge.cli.output import progress_bar
from vmp_edge.progress import Bar, Step, duration, note, part


@pytest.fixture
def fast(monkeypatch):
    """Seconds become hundredths of a second."""
    monkeypatch.setattr(progress, "REFRESH", 0.01)
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    monkeypatch.setattr(progress, "TELLING", 0.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "nothing was shown"
        time.sleep(0.005)


def test_a_step_in_a_log_begins_and_ends_with_a_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with Step("[1/2] load"):
        pass
    assert re.fullmatch(r"\[1/2\] load \.\.\.\n\[1/2\] load \.\.\. 0\.\d s\n", log.getvalue())


def test_a_log_gets_a_line_from_time_to_time(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with Step("lower"), part("compile"):
        wait_for(lambda: log.getvalue().count("lower: compile ... 0 s\n") >= 2)
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()


def test_counted_work_says_how_far_it_is_and_how_long_it_will_take(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with Step("quantise"), part("calibrate", 64, "clips") as step:
        step.advance(12)
        wait_for(
            lambda: re.search(r"quantise: calibrate \.\.\. 12 of 64 clips, 0 s, about \d+ s left\n", log.getvalue())
        )


def test_a_terminal_has_one_line(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Step("lower"):
        with part("a part of it"):
            wait_for(lambda: terminal.getvalue().count("lower: a part of it ... 0 s") >= 3)
        note("by the way")
        assert terminal.getvalue().count("\n") == 1 and "\r\x1b[Kby the way\n" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[Klower ... 0.0 s\n") or re.search(
        r"lower \.\.\. \d", terminal.getvalue()
    )
    assert terminal.getvalue().count("\n") == 2


def test_a_long_title_stays_in_the_line(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((40, 20)))
    with Step("write /a/very/long/path/to/the/folder/of/the/bundle"):
        wait_for(lambda: terminal.getvalue().count("\r") > 2)
        assert max(len(line) for line in terminal.getvalue().replace("\x1b[K", "").split("\r")) < 40


def test_a_silenced_compiler_does_not_silence_the_progress(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with Step("lower"), contextlib.redirect_stderr(io.StringIO()) as silenced:
        print("a compiler's noise", file=sys.stderr)
        wait_for(lambda: "lower ... 0 s\n" in log.getvalue())
    assert silenced.getvalue() == "a compiler's noise\n"


def test_failures_are_said_and_interrupts_left_to_the_command(monkeypatch):
    for error, words in ((ValueError, "load ... failed\n"), (KeyboardInterrupt, "load ...\n")):
        monkeypatch.setattr(sys, "stderr", log := io.StringIO())
        with pytest.raises(error), Step("load"), part("read"):
            raise error
        assert log.getvalue().endswith(words)
        assert not progress._display.active


def test_the_thread_ends_with_the_last_step(fast):
    with Step("one"):
        assert any(thread.name == "progress" for thread in threading.enumerate())
    wait_for(lambda: not any(thread.name == "progress" for thread in threading.enumerate()))


def test_parts_of_nothing_show_nothing(capsys):
    with part("compile", 3, "files") as step:
        step.advance()
    assert capsys.readouterr().err == ""


def test_a_bar_is_what_tqdm_is(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    assert list(progress_bar(iter("abc"), total=3, desc="clips", unit="clip")) == ["a", "b", "c"]
    bar = Bar(total=5, desc="decode", unit="clip", initial=1)
    bar.update(2)
    wait_for(lambda: re.search(r"decode \.\.\. 3 of 5 clips, 0 s, about \d+ s left", log.getvalue()))
    bar.close()
    bar.close()
    assert "clips" not in log.getvalue().split("decode")[0]  # what takes no time is not worth a line
    assert list(Bar([1, 2])) == [1, 2]


def test_a_bar_that_is_left_early_ends(capsys):
    for _ in (items := iter(Bar(range(3), desc="clips"))):
        break
    items.close()
    assert not progress._display.active
    assert "failed" not in capsys.readouterr().err


def test_a_bar_of_work_that_failed_ends(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())

    def train():
        bar = Bar(total=3, desc="training", unit="step")
        bar.set_postfix(loss="0.123", refresh=False)
        wait_for(lambda: "training ... 0 of 3 steps, 0 s, loss=0.123\n" in log.getvalue())
        raise ValueError

    with pytest.raises(ValueError):
        train()
    gc.collect()
    assert not progress._display.active


def test_an_error_output_that_is_closed_harms_nothing(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with Step("lower"):
        stream.close()
        time.sleep(0.1)


def test_without_an_error_output_nothing_goes_to_the_standard_output(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    with Step("lower"), part("compile"):
        note("by the way")
    note("afterwards")
    assert capsys.readouterr().out == ""


def test_odd_names_do_not_reach_the_terminal(capsys):
    with Step("write a\x1b[2Jb\n"):
        note("c\x07\u202e")
    said = capsys.readouterr().err
    assert "write a\\x1b[2Jb\\n ...\n" in said and "c\\x07\\u202e\n" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_among_other_processes_a_terminal_gets_whole_lines_with_a_name(monkeypatch, fast):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.among_others("share 1 of 2"), Step("videos", quiet=True):
        wait_for(lambda: terminal.getvalue().count("\n") >= 2)
        note("a note")
    assert set(terminal.getvalue().splitlines()) == {"share 1 of 2: videos ... 0 s", "a note"}
    with Step("videos", quiet=True):
        wait_for(lambda: "\r\x1b[Kvideos ... 0 s" in terminal.getvalue())


def test_notes_can_be_left_out(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with progress.without_notes():
        note("one")
    note("two")
    assert log.getvalue() == "two\n"
