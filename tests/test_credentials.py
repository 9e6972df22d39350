"""Credentials come from the environment or from files, fit their place in an address, and are never shown."""

import shlex
import urllib.parse

import pytest

from vmp_edge.credentials import with_credentials
from vmp_edge.errors import UsageError
from vmp_edge.events.sinks import open_sink
from vmp_edge.masking import masked, without_secrets
from vmp_edge.sources import open_source

ODD = "p@s/s wo?r#d'\"%\\ü"


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setattr("vmp_edge.masking._given", set())
    monkeypatch.setenv("CAM_USER", "us:er")
    monkeypatch.setenv("CAM_PASSWORD", ODD)


def test_a_user_and_a_password_from_the_environment_become_those_of_the_url():
    url = urllib.parse.urlsplit(with_credentials("rtsp://${CAM_USER}:${CAM_PASSWORD}@cam:554/live"))
    assert (url.hostname, url.port, url.path) == ("cam", 554, "/live")
    assert (urllib.parse.unquote(url.username), urllib.parse.unquote(url.password)) == ("us:er", ODD)


def test_a_value_fits_its_place():
    query = urllib.parse.urlsplit(with_credentials("http://cam/a?user=${CAM_USER}&pwd=${CAM_PASSWORD}&x=1")).query
    assert urllib.parse.parse_qs(query) == {"user": ["us:er"], "pwd": [ODD], "x": ["1"]}
    for quoted in ("user-pw=${CAM_PASSWORD}", 'user-pw="${CAM_PASSWORD}"', "user-pw='${CAM_PASSWORD}'"):
        pipeline = with_credentials(f"rtspsrc location=rtsp://${{CAM_USER}}@cam/a?b {quoted} ! decodebin")
        assert shlex.split(pipeline) == [
            "rtspsrc",
            "location=rtsp://us%3Aer@cam/a?b",
            f"user-pw={ODD}",
            "!",
            "decodebin",
        ]
    assert with_credentials("${CAM_PASSWORD}") == ODD, "such as a token"


def test_the_first_line_of_a_file_is_a_value_too(tmp_path):
    path = tmp_path / "cam"
    path.write_bytes(b"secret\r\nmore\n")
    assert with_credentials(f"rtsp://a:${{file:{path}}}@cam/") == "rtsp://a:secret@cam/"
    path.write_bytes(b"\xff\xfe")
    assert with_credentials(f"rtsp://a:${{file:{path}}}@cam/") == "rtsp://a:%FF%FE@cam/"


def test_a_whole_address_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CAM_URL", "rtsp://admin:hunter2@cam/live")
    url = with_credentials("${CAM_URL}")
    assert url == "rtsp://admin:hunter2@cam/live" and masked(url) == "rtsp://cam/live"


def test_what_came_from_outside_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("STREAM", "7f/3e9a b")
    url = with_credentials("http://cam/live/${STREAM}/a.mjpg")
    assert url == "http://cam/live/7f/3e9a b/a.mjpg" and masked(url) == "http://cam/live/***/a.mjpg"
    assert without_secrets("no 7f/3e9a b, and no 7f%2F3e9a%20b") == "no ***, and no ***"
    monkeypatch.setenv("PIN", "18")
    assert masked(with_credentials("http://cam/${PIN}/a")) == "http://cam/***/a"
    assert without_secrets("1 of 18 events") == "1 of 18 events"


@pytest.mark.parametrize("address", ["clip.mp4", "$HOME/${}", "rtsp://cam/$a{b}", "${a b}", "${file:}", ""])
def test_everything_else_stays_as_it_is(address):
    assert with_credentials(address) == address


def test_a_file_that_has_such_a_name_is_that_file(tmp_path, monkeypatch):
    path = tmp_path / "${CAM_USER}.mp4"
    path.touch()
    assert with_credentials(str(path)) == str(path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("${VMP_NONE}", "VMP_NONE.* is not set"),
        ("${VMP_EMPTY}", "is empty"),
        ("${VMP_LINES}", "control characters"),
        ("${file:/none/cam}", "/none/cam.* cannot be read: No such file"),
        ("${file:/}", "cannot be read: Is a directory"),
        ("${file:/dev/null}", "is empty"),
        ("${file:/dev/zero}", "longer than 4096 bytes"),
        ("${file:a\0b}", "cannot be read"),
    ],
)
def test_a_value_that_is_not_there_is_one_line(monkeypatch, place, reason):
    monkeypatch.setenv("VMP_EMPTY", "")
    monkeypatch.setenv("VMP_LINES", "a\nb")
    for open_it in (open_source, lambda text: open_sink(text, print)):
        with pytest.raises(UsageError, match=reason) as caught:
            open_it(f"http://admin:hunter2{place}@cam/live")
        assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value) and "cam" in str(caught.value)


def test_sources_and_sinks_take_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FOLDER", str(tmp_path))
    with pytest.raises(Exception, match=r"the video \*\*\*/none.mp4 does not exist"):
        open_source("${FOLDER}/none.mp4")
    open_sink("${FOLDER}/events.jsonl", print).close()
    assert (tmp_path / "events.jsonl").exists()
