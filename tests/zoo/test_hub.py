"""Fetching checkpoints by the hub's own client, from a small server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub, serve

from vmp_edge.errors import UsageError
from vmp_edge.zoo import Address

pytest.importorskip("huggingface_hub")

FILE = "OpenGVLab/VideoMamba/videomamba_t16_k400_f8_res224.pth"
DATA = bytes(range(256)) * 40_000  # 10 MB

PROGRAM = """
import sys
from vmp_edge.errors import VmpError
from vmp_edge.zoo import Address, fetch
try:
    print(fetch(Address.parse(sys.argv[1])))
except VmpError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def fetch(
    hub: Hub, folder: Path, address: str = f"hf://{FILE}", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Fetch in a process of its own, because the client reads the environment when it is imported."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VMP_EDGE_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, address],
        capture_output=True,
        text=True,
        env={**inherited, **settings, **environment},
        timeout=120,
    )


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


def test_file_of_the_wrong_size_is_refused_and_not_kept(tmp_path: Path) -> None:
    with serve(Hub({FILE: DATA}, missing=1000)) as hub:
        message = failure(hub, tmp_path)
        assert message.startswith("HubError: ") and "could not be downloaded" in message
        assert not list((tmp_path / "hf").rglob("*.pth"))
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
