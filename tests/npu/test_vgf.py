"""Arm's VGF: one file with the source model's numbers, on Vulkan emulated on the CPU (`make test-npu`)."""

import os

import numpy as np
import pytest
import torch
from small_models import READOUTS

if "VMP_EDGE_TEST_NPU" not in os.environ:
    pytest.skip("a heavy toolchain: run by `make test-npu`", allow_module_level=True)
pytest.importorskip("model_converter", reason="needs Arm's model converter")

from vmp_edge.compile import graph, target
from vmp_edge.compile.emulation.vgf import Scenario
from vmp_edge.compile.lowerings import delegates
from vmp_edge.compile.lowerings.delegates import vgf
from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.models import ModelOptions, VideoMamba

SMALL = {"embed_dim": 32, "depth": 1, "image_size": 32, "num_frames": 2, "num_classes": 5}


@pytest.fixture(scope="module", params=[{}, *READOUTS.values()], ids=str)
def lowered(request):
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**{**SMALL, **request.param})).eval()
    kind = target.load("arm-vgf")
    return model, vgf.lower(delegates.prepare(graph.export(model), kind, "fp32").program, kind, "fp32")


def test_the_file_agrees_with_the_source_model(lowered):
    model, made = lowered
    try:
        made.check()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    video = torch.randn(1, 3, 2, 32, 32)
    with torch.no_grad():
        expected = model(video).numpy()
    got = made.run(graph.fold_frames(video, 1).numpy())
    noise = np.square(got - expected, dtype=np.float64).sum()
    assert 10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise) >= 100


def test_the_emulator_s_complaint_is_one_line(lowered):
    try:
        lowered[1].check()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with pytest.raises(BuildError, match="cannot run the VGF file: ") as caught:
        Scenario(b"not a model", (1, 5)).run(np.zeros((2, 3, 32, 32), np.float32))
    assert "\n" not in str(caught.value)
