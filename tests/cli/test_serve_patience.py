"""`vmp-edge serve` waits for cameras that are off when it starts, because devices start before their cameras."""

import json
import signal
import time
import urllib.request

import pytest
from commands import start

pytest.importorskip("aiohttp", reason="needs the extra `serve`")


def state_of(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/state", timeout=60) as answer:
        return json.load(answer)["cameras"]


def come_true(port, condition):
    """Wait until a condition on the cameras' states is true, and return them."""
    deadline = time.monotonic() + 60
    while not condition(cameras := state_of(port)):
        assert time.monotonic() < deadline, cameras
        time.sleep(0.02)
    return cameras


def test_a_camera_that_is_off_at_the_start_runs_as_soon_as_it_is_on(bundle, endless, tmp_path):
    code, options = endless
    note = tmp_path / "on"
    options["env"].update(NOTE=str(note), VMP_EDGE_TOKEN="")
    sources = [word for text in ("endless ! x", "later ! x", "missing.mp4") for word in ("--source", text)]
    process = start(code, "serve", bundle, "--port", "0", "--json", *sources, **options)
    port = json.loads(process.stdout.readline())["port"]
    cameras = come_true(port, lambda cameras: cameras[0]["state"] == "running" and cameras[1]["message"])
    assert cameras[1]["state"] == "opening"
    assert "it is off" in cameras[1]["message"] and "trying again in" in cameras[1]["message"]
    cameras = come_true(port, lambda cameras: cameras[2]["state"] == "failed")
    assert "missing.mp4 does not exist" in cameras[2]["message"]
    note.touch()
    come_true(port, lambda cameras: cameras[1]["state"] == "running" and cameras[1]["frames"] > 0)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)
    assert "later ! x is there" in err and err.count("missing.mp4") == 1


def test_wrong_addresses_alone_end_it(bundle):
    process = start("from vmp_edge.cli import main; sys.exit(main(sys.argv[1:]))", "serve", bundle, "--port", "0",
                    "--source", "missing.mp4")  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.rstrip().splitlines()[-1].startswith("vmp-edge: the video missing.mp4 does")
