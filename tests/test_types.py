"""What a user's type checker sees of the package: the types of all that is public, and no `Any` in their place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import assert_type

import vmp_edge
from vmp_edge.models import VideoMamba, create, load_checkpoint
from vmp_edge.models.options import ModelOptions
from vmp_edge.ops import selective_scan


def scan(x: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    assert_type(vmp_edge.ops.selective_scan(x, x, A, x, x, reverse=True), torch.Tensor)
    assert_type(vmp_edge.ops.bi_selective_scan(x, x, A, A, x, x), torch.Tensor)
    assert_type(vmp_edge.ops.causal_conv_silu(x, A), torch.Tensor)
    assert_type(vmp_edge.ops.reference.selective_scan(x, x, A, x, x), torch.Tensor)
    return selective_scan(x, x, A, x, x)


def models(video: torch.Tensor) -> None:
    assert_type(vmp_edge.models.create("videomamba-tiny", num_classes=10), vmp_edge.models.VideoMamba)
    assert_type(create("videomamba-tiny"), VideoMamba)
    assert_type(load_checkpoint("k400.pth"), VideoMamba)
    assert_type(vmp_edge.models.PRESETS, dict[str, ModelOptions])
    assert_type(vmp_edge.models.preset("videomamba-tiny"), vmp_edge.models.ModelOptions)
    model = create("videomamba-tiny")
    assert_type(model(video), torch.Tensor)
    assert_type(model.options.num_classes, int)


def recognise(clip: npt.NDArray[np.uint8]) -> str:
    with vmp_edge.load("videomamba-tiny-k400-8x224", target="host", features=True) as recognizer:
        assert_type(recognizer, vmp_edge.Recognizer)
        assert_type(recognizer.labels, tuple[str, ...])
        assert_type(recognizer.predict(clip), vmp_edge.Prediction)
        assert_type(recognizer.predict(Path("clip.mp4")), vmp_edge.Prediction)
        assert_type(recognizer.predict([Path("a.mp4"), clip]), list[vmp_edge.Prediction])
        assert_type(recognizer.predict(sorted(Path("clips").glob("*.mp4"))), list[vmp_edge.Prediction])
        print(recognizer.predict("clip.mp4").label)
        for prediction in recognizer.stream("rtsp://camera/stream", hop=8):
            assert_type(prediction, vmp_edge.Prediction)
            assert_type(prediction.top(3), list[tuple[str, float]])
        with recognizer.stream(frame for frame in clip) as results:
            assert_type(next(results), vmp_edge.Prediction)
        assert_type(vmp_edge.Stream(recognizer).push(clip[0]), vmp_edge.Prediction | None)
        return recognizer.predict(clip).label


def wrong(recognizer: vmp_edge.Recognizer) -> None:
    vmp_edge.nonsense  # error: attr-defined
    vmp_edge.models.nonsense  # error: attr-defined
    vmp_edge.ops.nonsense  # error: attr-defined
    vmp_edge.load("egomotion-nano", precisoin="int8")  # error: call-arg
    recognizer.predict(3)  # error: call-overload
    recognizer.stream(3.5)  # error: arg-type
"""


@pytest.fixture(scope="module")
def mypy():
    pytest.importorskip("mypy", reason="needs mypy, of the extra `dev`")
    pytest.importorskip("torch")
    return [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file="]


def check(mypy, tmp_path, program):
    """The errors that mypy finds in a user's program, which lies outside of the checkout."""
    (tmp_path / "user.py").write_text(program)
    command = [*mypy, "--cache-dir", str(ROOT / ".mypy_cache" / "users"), "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_a_users_program_is_checked_strictly(mypy, tmp_path):
    errors = check(mypy, tmp_path, PROGRAM)
    expected = [
        (number, line.rpartition("# error: ")[2])
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if "# error: " in line
    ]
    found = [(int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]")) for line in errors if ": error: " in line]
    assert found == expected, "\n".join(errors)


def test_every_public_name_has_a_type(mypy, tmp_path):
    import vmp_edge
    from vmp_edge import models, ops

    names = [
        *(f"vmp_edge.{name}" for name in vmp_edge.__all__),
        *(f"vmp_edge.models.{name}" for name in models.__all__),
        *(f"vmp_edge.ops.{name}" for name in ops.__all__),
    ]
    revealed = check(mypy, tmp_path, "import vmp_edge\n" + "".join(f"reveal_type({name})\n" for name in names))
    assert len(revealed) >= len(names)
    assert not [line for line in revealed if 'type is "Any"' in line or ": error: " in line]
