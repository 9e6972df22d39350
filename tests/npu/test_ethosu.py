"""Ethos-U by Vela: the whole model in int16 and int8, run by Arm's TOSA reference model (`make test-npu`)."""

import os

import numpy as np
import pytest
import torch
from small_models import READOUTS

if "VMP_EDGE_TEST_NPU" not in os.environ:
    pytest.skip("a heavy toolchain: run by `make test-npu`", allow_module_level=True)
pytest.importorskip("ethosu.vela", reason="needs ethos-u-vela")
pytest.importorskip("tosa_reference_model", reason="needs tosa-tools")

from vmp_edge.calibration import quantisation
from vmp_edge.compile import graph, target
from vmp_edge.compile.lowerings import delegates
from vmp_edge.compile.lowerings.delegates import ethosu
from vmp_edge.models import ModelOptions, VideoMamba

SMALL = {"embed_dim": 32, "depth": 1, "image_size": 16, "num_frames": 4, "num_classes": 5}
WIDE = quantisation.load("16a8w")


@pytest.mark.parametrize("options", [{}, *READOUTS.values()], ids=str)
def test_the_quantised_program_agrees_with_the_source_model(options):
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**{**SMALL, **options})).eval()
    kind = target.load("arm-ethos-u85")
    videos = [torch.randn(1, 3, 4, 16, 16) for _ in range(4)]
    frames = [graph.fold_frames(video, 1) for video in videos]
    plain = delegates.prepare(graph.export(model), kind, "16a8w").program
    with delegates.quiet():
        program = quantisation.quantise(plain, WIDE, frames, quantizer=delegates.quantiser(kind, WIDE))
    taken = next(node for node in program.graph.nodes if "quantize_per_tensor" in str(node.target))
    assert taken.args[1] == pytest.approx(WIDE.headroom * float(torch.stack(frames).abs().max()) / 32767, rel=1e-3)
    made = ethosu.lower(program, kind, "16a8w")
    with torch.no_grad():
        expected = np.concatenate([model(video).numpy() for video in videos])
    got = np.concatenate([made.run(one.numpy()) for one in frames])
    noise = np.square(got - expected, dtype=np.float64).sum()
    assert 10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise) >= 25
    assert len(made.program) < 3e6
