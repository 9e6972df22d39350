"""Two real processes, started by torchrun or as SLURM does it, find together what one of them finds alone."""

import os
import pty
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from brightness_engine import FEATURES
from bundles import grey, make_manifest, write_bundle
from commands import PROGRAM, RUN, last_json, start

QUICK = "from vmp_edge import progress; progress.SILENCE = progress.REFRESH = 0.01\n"  # seconds between two lines
SLOW = """
import time
run = brightness_engine.BrightnessEngine.run
brightness_engine.BrightnessEngine.run = lambda self, video: (time.sleep(0.1), run(self, video))[1]
"""
BROKEN = """
import os
from vmp_edge.errors import BundleError
def fail(self, video):
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID")) == "1":
        raise BundleError("the engine broke")
    return run(self, video)
run, brightness_engine.BrightnessEngine.run = brightness_engine.BrightnessEngine.run, fail
"""
PATIENCE = 120  # seconds; only against hanging
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_STEP_ID")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No launcher of the tests themselves; the working folder is the common one."""
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", make_manifest(features=FEATURES))


@pytest.fixture
def videos(tmp_path):
    """Seven labelled videos that get brighter, darker, or neither, and a file that is none."""
    for index, label in enumerate(("brighter", "darker", "steady", "brighter", "darker", "steady", "steady")):
        path = tmp_path / "videos" / label / f"{index}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 24))
        for number in range(8):
            writer.write(grey(100 + 10 * index + {"brighter": 9, "darker": -9, "steady": 0}[label] * number))
        writer.release()
    (tmp_path / "videos" / "darker" / "broken.avi").write_bytes(b"no video")
    return tmp_path / "videos"


def by_torchrun(code, *arguments):
    """Start two processes by torchrun, and return its exit code, standard output and error output."""
    pytest.importorskip("torch", reason="torchrun comes with PyTorch")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*launcher, sys.executable, "-c", PROGRAM + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout, done.stderr


def by_slurm(code, *arguments):
    """Start two processes with the variables that srun sets, and return as `by_torchrun` does, the worse exit code."""
    started = [
        start(code, *arguments, env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_NTASKS": "2"}) for rank in (0, 1)
    ]
    texts = [process.communicate(timeout=PATIENCE) for process in started]
    return max(process.returncode for process in started), *("".join(part) for part in zip(*texts, strict=True))


LAUNCHERS = pytest.mark.parametrize("launch", [by_torchrun, by_slurm])


def objects(out):
    """Return the JSON objects of the processes, that of the last one at the end."""
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return sorted(map(lambda line: last_json([line]), lines), key=lambda found: "share" not in found)


@LAUNCHERS
def test_embed(bundle, videos, tmp_path, launch):
    command = ["embed", bundle, videos, "--workers", 0, "--json", "--output"]
    process = start(RUN, *command, "whole.npz")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    code, out, err = launch(RUN, *command, "shared.npz")
    assert code == 0, err
    pending, result = objects(out)
    assert pending["output"] is None and (result["output"], result["videos"]) == ("shared.npz", 7)
    assert all(f"share {number} of 2: 4 videos of 8" in err for number in (1, 2))
    with np.load("whole.npz") as whole, np.load("shared.npz") as shared:
        assert whole.files == shared.files
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], shared[name])
    assert list(tmp_path.glob(".vmp-edge*")) == []


@LAUNCHERS
def test_evaluate(bundle, videos, tmp_path, launch):
    command = ["evaluate", bundle, videos, "--workers", 0, "--json"]
    process = start(RUN, *command)
    whole = last_json(process.communicate(timeout=PATIENCE)[0].splitlines())
    assert whole["clips"] == 7 and whole["stream"] is not None and len(whole["skipped"]) == 1
    code, out, err = launch(RUN, *command)
    assert code == 0, err
    pending, shared = objects(out)
    assert pending["shares"] == 2
    for name in ("timing", "engine_ms"):  # of one machine
        whole.pop(name), shared.pop(name)
    assert shared == whole and list(tmp_path.glob(".vmp-edge*")) == []


@pytest.mark.parametrize(("launch", "verb"), [(by_torchrun, "embed"), (by_slurm, "evaluate")])
def test_a_failure_of_one_is_said_and_holds_up_nobody(bundle, videos, tmp_path, launch, verb):
    command = [verb, bundle, videos, "--workers", 0, "--json", *(["--output", "shared.npz"] if verb == "embed" else [])]
    code, out, err = launch(BROKEN + RUN, *command)
    assert code == 1
    assert "vmp-edge: share 2 of 2: the engine broke\n" in err
    assert {"error": "share 2 of 2: the engine broke"} in objects(out)
    assert not (tmp_path / "shared.npz").exists()
    code, out, _ = launch(RUN, *command)  # what is there of the first run is kept
    assert code == 0 and any(result.get("videos" if verb == "embed" else "clips") == 7 for result in objects(out))
    # Share 1 may start so late that share 2 has used its kept part already: then it computes it again.
    assert [path.name for path in tmp_path.glob(".vmp-edge*/*")] in ([], ["0.npz"])


def test_two_that_write_to_one_terminal_write_whole_lines(bundle, videos):
    master, terminal = pty.openpty()
    command = [QUICK + SLOW + RUN, "embed", bundle, videos, "--workers", 0, "--output", "shared.npz"]
    ranks = [{**os.environ, "SLURM_PROCID": str(rank), "SLURM_NTASKS": "2"} for rank in (0, 1)]
    processes = [start(*command, env=rank, stdout=terminal, stderr=terminal) for rank in ranks]
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(master, 1 << 16):
            shown += part
    except OSError:  # all of them have ended
        os.close(master)
    assert [process.wait(PATIENCE) for process in processes] == [0, 0]
    text = shown.decode()
    assert "\x1b" not in text
    lines = text.replace("\r\n", "\n").splitlines()
    progress = re.compile(r"share [12] of 2: videos \.\.\. \d of 4 videos, \d+ s(, about \d+ s left)?")
    others = re.compile(
        r"vmp-edge: share [12] of 2(: 4 videos of 8| is done; (the last|another) one writes .*)"
        r"|left out: .*|shared\.npz: .*"
    )
    assert {line[:7] for line in lines if progress.fullmatch(line)} == {"share 1", "share 2"}
    assert [line for line in lines if not (progress.fullmatch(line) or others.fullmatch(line))] == []
