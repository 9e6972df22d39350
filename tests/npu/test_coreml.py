"""Core ML: models of all options become one ML program with the source model's numbers (`make test-npu`)."""

import os

import numpy as np
import pytest
import torch
from small_models import READOUTS

if "VMP_EDGE_TEST_NPU" not in os.environ:
    pytest.skip("a heavy toolchain: run by `make test-npu`", allow_module_level=True)
pytest.importorskip("coremltools", reason="needs coremltools")

from vmp_edge.compile import graph, target
from vmp_edge.compile.lowerings.delegates import coreml
from vmp_edge.models import ModelOptions, VideoMamba
from vmp_edge.ops.chunked import Form

SMALL = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}
VANILLA = {"directions": "separate", "initial_state": "zero", "mask_backward": False, "scan_input": "conv"}


@pytest.mark.parametrize("form", [Form("loop", 4), Form("hillis-steele", 4)], ids=str)
@pytest.mark.parametrize("options", [{}, VANILLA, {"scan_order": "spatiotemporal"}, *READOUTS.values()], ids=str)
def test_the_ml_program_agrees_with_the_source_model(options, form):
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**{**SMALL, **options})).eval()
    plain = graph.with_plain_operations(graph.with_bounded_norms(graph.export(model)), form)
    made = coreml.lower(plain, target.load("apple-ane"), "fp16")
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = model(video).numpy()
    got = made.run(graph.fold_frames(video, 1).numpy())
    assert np.abs(got - expected).max() <= 5e-3 * np.ptp(expected)
    assert len(made.program) < 1.5e6
