"""Processes that train together decode a share of the videos each, and all of them see what one alone would see."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clips import write_clips
from torchrun import run_together

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSetError
from vmp_edge.calibration.pretrain import pieces
from vmp_edge.calibration.train import footage, parallel
from vmp_edge.calibration.train.parallel import Part
from vmp_edge.calibration.train.pixels import PixelFiles
from vmp_edge.preprocessing import Preprocessing

DECODER = """
import json, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import test_together as t
from vmp_edge.calibration.train import parallel

seen = []
for job in (t.footage.Shrink, t.pieces.Cut):
    def spy(self, entry, one=job.__call__):
        seen.append(entry.path.name)
        return one(self, entry)
    job.__call__ = spy
with parallel.processes() as part:
    clips, whole = t.decoded(Path({clips!r}), Path("out"))
    t.np.savez(f"{folder}/{{part.index}}.npz", *clips, *whole)
    Path(f"{folder}/{{part.index}}.json").write_text(json.dumps(seen))
"""


def plain(items, **_):
    """Stands in for a progress bar."""
    return items


def decoded(clips, folder):
    """Return what training and pre-training decode of clips."""
    known = clipset.read(clips).split(2)
    seconds = [1.6] * len(known)
    fine = footage.decode(known, 4, 0.8, Preprocessing(28), seconds, folder / "train", plain, workers=0)
    cut = pieces.decode(known, 4, 0.5, Preprocessing(28), folder / "pretrain", plain, workers=0)
    return fine.clips, list(cut.pixels)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Seven clips of two classes: no number that two processes divide evenly."""
    folder = write_clips(tmp_path_factory.mktemp("clips") / "colours", each=4, colours=("red", "blue"))
    (folder / "red" / "red-3.avi").unlink()
    return folder


def decoder(tmp_path, clips):
    """Return a command that decodes clips, and writes down what it did."""
    paths = [str(Path(__file__).parent), *sys.path]
    return [sys.executable, "-c", DECODER.format(paths=paths, clips=str(clips), folder=str(tmp_path))]


def decode_together(tmp_path, clips, machines):
    """Decode in two processes on one machine or two, and return which files each decoded, and its arrays."""
    folders = [tmp_path / f"machine-{number}" for number in range(machines)]
    for folder in folders:
        folder.mkdir()
    for exit_code, error in run_together(decoder(tmp_path, clips), 2, folders):
        assert exit_code == 0, error
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    return seen, [list(np.load(tmp_path / f"{rank}.npz").values()) for rank in range(2)], folders


@pytest.mark.parametrize("machines", [1, 2])
def test_each_process_decodes_a_share_of_what_its_machine_needs(tmp_path, clips, machines):
    """All processes see the arrays of one process, bit for bit, on one machine and on two with folders of their own."""
    names = [entry.path.name for entry in clipset.read(clips).entries]
    seen, arrays, folders = decode_together(tmp_path, clips, machines)
    shares = [names[0::2], names[1::2]] if machines == 1 else [names, names]
    assert seen == [2 * share for share in shares], "for the training and for the pre-training"
    fine, cut = decoded(clips, tmp_path / "alone")
    assert len(fine) == 7 and len(cut) > 7
    for found in arrays:
        assert len(found) == len(fine) + len(cut)
        assert all(map(np.array_equal, found, [*fine, *cut]))
    assert not any(list((folder / "out" / "train").iterdir()) for folder in folders), "nothing is left of a training"


def test_a_process_may_have_nothing_to_decode(tmp_path, clips, monkeypatch):
    videos = clipset.read(clips).entries[:2]
    files = PixelFiles(tmp_path, "few", 3)
    for index in range(3):
        monkeypatch.setattr(parallel, "on_this_machine", lambda index=index: Part(index, 3))
        files.decode(footage.Shrink(4, 0.8, Preprocessing(28)), videos, "clip", plain, workers=0)
    assert [clip.shape for clip in files.read(videos)] == [(24, 28, 28, 3)] * 2
    files.remove()
    assert not list(tmp_path.iterdir())


def test_what_one_process_cannot_decode_ends_all(tmp_path, clips):
    """No process waits for another that has failed, and all say the same as one process alone would."""
    broken = tmp_path / "clips"
    shutil.copytree(clips, broken)
    (broken / "blue" / "blue-1.avi").write_bytes(b"no video")  # in the share of the second process
    with pytest.raises(ClipSetError, match=r"1 cannot be used: blue-1\.avi") as alone:
        decoded(broken, tmp_path / "alone")
    assert not list((tmp_path / "alone" / "train").iterdir())
    for exit_code, error in run_together(decoder(tmp_path, broken), 2, [tmp_path]):
        assert exit_code == 1 and str(alone.value) in error.splitlines()[-1]


TRAINING = ["--init", "scratch", "--set", "embed_dim=32", "--set", "depth=1", "--frames", "4", "--image-size", "32"]
TRAINING += ["--engine", "torch", "--workers", "0", "--epochs", "2", "--set", "batch=2", "--output", "run"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, clips):
    """The folder of a training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    train(clips, [folder])
    return folder / "run"


def train(clips, folders, count=1):
    """Train in processes of machines that have these folders."""
    ended = run_together([sys.executable, "-m", "vmp_edge", "train", str(clips), *TRAINING], count, folders)
    assert [exit_code for exit_code, _ in ended] == [0] * count, ended


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_train_to_the_weights_of_one(tmp_path, clips, alone, machines):
    """A second machine has a folder of its own, in which it finds nothing when the command is repeated."""
    folders = [tmp_path / f"machine-{number}" for number in range(machines)]
    for folder in folders:
        folder.mkdir()
    train(clips, folders, 2)
    for name in ("held-out.pth", "model.pth"):
        one, two = (torch.load(run / name, weights_only=True)["model"] for run in (alone, folders[0] / "run"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)
    assert not list(tmp_path.rglob("*clips-*")), "nothing is left of the decoded clips"
    if machines == 2:
        train(clips, folders, 2)
