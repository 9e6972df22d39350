"""ExecuTorch's int8 programs on Arm64 under an emulator give this machine's numbers (`make test-npu`)."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import unsealed

if "VMP_EDGE_TEST_NPU" not in os.environ:
    pytest.skip("slow: run by `make test-npu`", allow_module_level=True)
pytest.importorskip("executorch", reason="needs executorch")
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from quantisation import KINDS, quantised

from vmp_edge.bundle.writing import Staging
from vmp_edge.compile import graph, parity, target
from vmp_edge.compile.emulation.runners import EmulatedExecuTorch
from vmp_edge.compile.lowering import Exported
from vmp_edge.compile.lowerings import executorch
from vmp_edge.errors import MissingDependencyError
from vmp_edge.models import ModelOptions, VideoMamba

SMALL = {"embed_dim": 64, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}


@pytest.mark.parametrize("precision", KINDS)
def test_int8_is_that_of_the_program(precision, tmp_path):
    """To what a rounding on the other side of an int8 step may change; without one they differ by 1e-6."""
    missing = [tool for tool in ("qemu-aarch64", "aarch64-linux-gnu-g++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**SMALL)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            parameter.data *= 3  # logits that differ
    program = quantised(graph.export(model), precision)
    kind = target.load("arm64-executorch")
    try:
        lowered = executorch.lower(Exported(model, program), Staging(tmp_path), kind, precision)
        engine = EmulatedExecuTorch(unsealed(tmp_path, lowered.program, model.options), "aarch64")
    except MissingDependencyError as error:
        pytest.skip(str(error))
    video = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        module = program.module(check_guards=False)
        expected = np.concatenate([module(graph.fold_frames(clip[None], 1)) for clip in video])
    assert np.abs(engine.run(video.numpy()) - expected).max() <= parity.VERIFIED * np.ptp(expected)
