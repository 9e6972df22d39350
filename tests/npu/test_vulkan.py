"""Vulkan: models of all options become one graph with the source model's numbers (`make test-npu`)."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_models import READOUTS

if "VMP_EDGE_TEST_NPU" not in os.environ:
    pytest.skip("slow: run by `make test-npu`", allow_module_level=True)
pytest.importorskip("executorch.backends.vulkan", reason="needs executorch")

from vmp_edge.compile import graph, target
from vmp_edge.compile.emulation.vulkan import Graph
from vmp_edge.compile.lowerings.delegates import vulkan
from vmp_edge.errors import BuildError
from vmp_edge.models import ModelOptions, VideoMamba
from vmp_edge.ops.chunked import Form

SMALL = {"embed_dim": 32, "depth": 1, "image_size": 32, "num_frames": 4, "num_classes": 5}
VANILLA = {"directions": "separate", "initial_state": "zero", "mask_backward": False, "scan_input": "conv"}
FORM = Form("loop", 4, "polynomial")


def lowered(model, form=FORM):
    plain = graph.with_plain_operations(graph.with_linear_patches(graph.export(model)), form)
    return vulkan.lower(plain, target.load("android-vulkan"), "fp32")


@pytest.mark.parametrize(
    "options", [{}, VANILLA, {"scan_order": "temporal_first", "tubelet_size": 2}, *READOUTS.values()], ids=str
)
def test_the_graph_agrees_with_the_source_model(options):
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**{**SMALL, **options})).eval()
    made = lowered(model)
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = model(video).numpy()
    got = made.run(graph.fold_frames(video, model.options.tubelet_size).contiguous().numpy())
    assert np.abs(got - expected).max() <= 1e-4


def test_what_it_cannot_take_is_refused():
    with pytest.raises(BuildError, match=r"leaves .*aten\.log"):
        lowered(VideoMamba(ModelOptions(**SMALL)).eval(), Form("loop", 4))


def tensor(memory=-1, constant=-1, dims=(2,), kind="FLOAT32"):
    """A value as the graph has it."""
    names = {"dims": dims, "constant_id": constant, "mem_obj_id": memory, "datatype": SimpleNamespace(name=kind)}
    return type("VkTensor", (), {})(), names


def made_graph(values, chain):
    """A graph without a file: input 0, the last value the output."""
    one = Graph.__new__(Graph)
    one.values = []
    for value, names in values:
        vars(value).update(names)
        one.values.append(value)
    calls = [SimpleNamespace(name=name, args=args) for name, args in chain]
    one.graph = SimpleNamespace(chain=calls, input_ids=[0], output_ids=[len(values) - 1])
    one.constants = {}
    return one


def test_overwritten_memory_is_found():
    values = [tensor(0), tensor(1), tensor(1), tensor(2)]
    chain = [("aten.relu.default", [0, 1]), ("aten.exp.default", [0, 2]), ("aten.exp.default", [1, 3])]
    with pytest.raises(BuildError, match="reads value 1 after its memory was given to another"):
        made_graph(values, chain).run(np.ones(2, np.float32))
    chain[2] = ("aten.exp.default", [2, 3])
    np.testing.assert_allclose(made_graph(values, chain).run(np.zeros(2, np.float32)), np.e, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "operator", "words"),
    [
        ([tensor(0), tensor(1)], "aten.log.default", r"has aten\.log\.default, which nobody has checked"),
        ([tensor(0), tensor(1, kind="FLOAT16")], "aten.exp.default", "computes in FLOAT16, FLOAT32"),
    ],
)
def test_what_is_not_as_it_should_be(values, operator, words):
    with pytest.raises(BuildError, match=words):
        made_graph(values, [(operator, [0, 1])]).check()


def test_a_wrong_shape_is_found():
    with pytest.raises(BuildError, match="gives \\[2\\], declared"):
        made_graph([tensor(0), tensor(1, dims=(3,))], [("aten.exp.default", [0, 1])]).run(np.ones(2, np.float32))
