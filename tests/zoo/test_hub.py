"""Fetching checkpoints by the hub's own client, from a small server on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import Hub, serve

from vmp_edge.errors import UsageError
from vmp_edge.zoo import Address, check
from vmp_edge.zoo.hub import endpoint

pytest.importorskip("huggingface_hub")

FILE = "OpenGVLab/VideoMamba/videomamba_t16_k400_f8_res224.pth"
DATA = bytes(range(256)) * 40_000  # 10 MB

TOKEN = "hf_thisIsATokenAndNobodySeesIt"

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background has ignored
from vmp_edge.errors import VmpError
from vmp_edge.zoo import Address, fetch
try:
    print(fetch(Address.parse(sys.argv[1])))
except VmpError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def environment_of(hub: Hub, folder: Path) -> dict[str, str]:
    """Return an environment in which the hub is the one on this machine, and everything lies in a folder."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "PROXY" not in key.upper()
    }
    return inherited | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
        "VMP_EDGE_CACHE": str(folder / "cache"),
    }


def fetch(
    hub: Hub, folder: Path, address: str = f"hf://{FILE}", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Fetch in a process of its own, because the client reads the environment when it is imported."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, address],
        capture_output=True,
        text=True,
        env={**environment_of(hub, folder), **environment},
        timeout=120,
    )
    assert TOKEN not in result.stdout + result.stderr
    return result


def failure(hub: Hub, folder: Path, address: str = f"hf://{FILE}", **environment: str) -> str:
    result = fetch(hub, folder, address, **environment)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_file_comes_through_a_redirect_and_is_then_taken_from_the_cache(tmp_path: Path) -> None:
    with serve(Hub({FILE: DATA})) as hub:
        first = fetch(hub, tmp_path)
        assert Path(first.stdout.strip()).read_bytes() == DATA, first.stderr
        second = fetch(hub, tmp_path)
        assert second.stdout == first.stdout
        assert hub.downloads() == [""]
    offline = fetch(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout
    unreachable = fetch(hub, tmp_path)  # the server is gone
    assert unreachable.stdout == first.stdout


def test_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    data = DATA * 3  # the client writes pieces of 10 MiB
    with serve(Hub({FILE: data}, breaks=1)) as hub:
        result = fetch(hub, tmp_path)
        assert Path(result.stdout.strip()).read_bytes() == data, result.stderr
        assert hub.downloads() == ["", f"bytes={10 << 20}-"]


def test_a_download_that_failed_goes_on_in_the_next_run(tmp_path: Path) -> None:
    data = DATA * 3
    with serve(Hub({FILE: data}, breaks=99)) as hub:
        assert "run the same command again to go on" in failure(hub, tmp_path)
        hub.breaks, before = 0, len(hub.downloads())
        assert Path(fetch(hub, tmp_path).stdout.strip()).read_bytes() == data
        assert hub.downloads()[before:] == [f"bytes={10 << 20}-"]
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.taken"))


def test_a_download_that_was_stopped_goes_on_in_the_next_run(tmp_path: Path) -> None:
    data = DATA * 3
    with serve(Hub({FILE: data}, stalls=True)) as hub:
        command = [sys.executable, "-c", PROGRAM, f"hf://{FILE}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment_of(hub, tmp_path)) as process:
            deadline = time.monotonic() + 60
            while not any(file.stat().st_size for file in tmp_path.rglob("*.incomplete")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        hub.stalls = False
        assert Path(fetch(hub, tmp_path).stdout.strip()).read_bytes() == data
        assert hub.downloads() == ["", f"bytes={10 << 20}-"]


def test_what_is_kept_of_other_content_is_not_taken(tmp_path: Path) -> None:
    with serve(Hub({FILE: DATA * 3}, breaks=99)) as hub:
        failure(hub, tmp_path)
        hub.breaks, hub.files[FILE], before = 0, DATA[::-1] * 3, len(hub.downloads())
        assert Path(fetch(hub, tmp_path).stdout.strip()).read_bytes() == DATA[::-1] * 3
        assert hub.downloads()[before:] == [""]


def test_a_full_disk_is_one_line_and_keeps_nothing(tmp_path: Path) -> None:
    with serve(Hub({FILE: DATA * 3})) as hub:
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 20, 12 << 20))\n{PROGRAM}"
        result = subprocess.run(
            [sys.executable, "-c", limited, f"hf://{FILE}"],
            capture_output=True,
            text=True,
            env=environment_of(hub, tmp_path),
            timeout=120,
        )
    message = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "File too large" in message and "set HF_HOME to another folder" in message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "the hub asks for a token, or refuses the one that it got; set HF_TOKEN"),
        (403, "answers 403 Forbidden: copy http"),
        (404, "answers 404 Not Found: copy http"),
        (200, "does not answer as a hub does; check HF_ENDPOINT"),
    ],
)
def test_what_the_hub_answers_is_said(tmp_path: Path, status: int, expected: str) -> None:
    with serve(Hub({}, status=status)) as hub:
        assert expected in failure(hub, tmp_path)


def test_what_a_proxy_answers_is_said(tmp_path: Path) -> None:
    with serve(Hub({}, status=407)) as proxy:
        settings = {"HF_ENDPOINT": "http://hub.invalid", "NO_PROXY": "", "HTTP_PROXY": proxy.endpoint}
        assert "407 Proxy Authentication Required" in failure(proxy, tmp_path, **settings)


@pytest.mark.parametrize(
    "text", ["hub.example", "ftp://hub.example", "http://", "http://h:99999", "http://h x", "file:///x"]
)
def test_an_endpoint_that_is_no_address_is_named_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", text)
    with pytest.raises(UsageError, match=r"HF_ENDPOINT is .*, which is no address"):
        check(Address.parse(f"hf://{FILE}"))
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert endpoint() == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example:80/sub/")
    assert (
        Address.parse(f"hf://{FILE}").page
        == f"http://hub.example:80/sub/OpenGVLab/VideoMamba/resolve/main/{FILE.rpartition('/')[2]}"
    )


def test_a_password_of_the_endpoint_is_not_shown(tmp_path: Path) -> None:
    with serve(Hub({}, status=403)) as hub:
        address = hub.endpoint.replace("//", "//user:geheim@")
        message = failure(hub, tmp_path, HF_ENDPOINT=address)
        assert "geheim" not in message and f"copy {hub.endpoint}/" in message


def test_file_of_the_wrong_size_is_refused_and_not_kept(tmp_path: Path) -> None:
    with serve(Hub({FILE: DATA}, missing=1000)) as hub:
        message = failure(hub, tmp_path)
        assert message.startswith("HubError: ") and "could not be downloaded" in message
        assert not list((tmp_path / "hf").rglob("*.pth"))  # only a beginning is kept
        hub.missing = 0
        assert Path(fetch(hub, tmp_path).stdout.strip()).read_bytes() == DATA


def test_offline_says_which_file_to_copy_where(tmp_path: Path) -> None:
    hub = Hub({}, endpoint="http://127.0.0.1:9")
    place = tmp_path / "cache" / "checkpoints" / FILE
    page = "http://127.0.0.1:9/OpenGVLab/VideoMamba/resolve/main/videomamba_t16_k400_f8_res224.pth"
    offline = failure(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert offline == f"HubError: hf://{FILE} is not in the cache, and HF_HUB_OFFLINE is set: copy {page} to {place}"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    assert fetch(hub, tmp_path).stdout.strip() == str(place)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hf://nobody/nothing/x.pth", "the hub has no repository nobody/nothing"),
        ("hf://OpenGVLab/VideoMamba/other.pth", "the repository has no file other.pth"),
        (f"hf://OpenGVLab/VideoMamba@v9/{FILE.rpartition('/')[2]}", "the repository has no revision v9"),
        ("hf://gated/model/x.pth", "accept it on its page, and set HF_TOKEN"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(tmp_path: Path, address: str, expected: str) -> None:
    with serve(Hub({FILE: b"x"}, errors={"gated/model": "GatedRepo"})) as hub:
        assert expected in failure(hub, tmp_path, address)


@pytest.mark.parametrize(
    "text", ["hf://", "hf://a", "hf://a/b", "hf://a/b/", "hf://a/b/../c", "hf://../b/c", "hf://a b/c/d", "hf://a/b@/c"]
)
def test_an_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no file on the hub"):
        Address.parse(text)


def test_an_address_has_a_revision_and_folders() -> None:
    address = Address.parse("hf://a/b@v1.2/folder/file.pth")
    assert (address.repository, address.file, address.revision) == ("a/b", "folder/file.pth", "v1.2")
    assert str(address) == "hf://a/b@v1.2/folder/file.pth"
