"""Engines take as many threads as can run at the same time, in a process that may use a part of the machine."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs, and Linux"
)

PINNED = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""

ONNX = """
import contextlib
import numpy as np, onnxruntime
from onnx import TensorProto, helper, save
from types import SimpleNamespace
from pathlib import Path
from vmp_edge.runtimes.onnxruntime import engine

options = []
class Session(onnxruntime.InferenceSession):
    def __init__(self, path, given, providers):
        options.append(given)
        super().__init__(path, given, providers=providers)
onnxruntime.InferenceSession = Session

value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 64]) for name in "xy"]
node = helper.make_node("MatMul", ["x", "x"], ["y"])
graph = helper.make_graph([node], "g", value[:1], value[1:])
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
folder, threads = Path(sys.argv[1]), int(sys.argv[2]) or None
save(model, folder / "model.onnx")
manifest = SimpleNamespace(program="model.onnx", embedding=None, tubelet=1, states={})
take = lambda name: contextlib.nullcontext(SimpleNamespace(path=str(folder / name)))
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
loaded = engine.OnnxRuntimeEngine(SimpleNamespace(path=folder, manifest=manifest, take=take), threads)
given = options[-1]
try:
    spinning = given.get_session_config_entry("session.intra_op.allow_spinning")
except Exception:
    spinning = "default"
print(given.intra_op_num_threads, count() - before, spinning)
"""


def run(script, *arguments):
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


@pytest.mark.parametrize(
    ("pinned", "threads", "expected"),
    [(True, 0, ["1", "0", "default"]), (True, 3, ["3", "2", "0"]), (False, 1, ["1", "0", "default"])],
)
def test_onnx_runtime(tmp_path, pinned, threads, expected):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    script = (PINNED if pinned else "import os, sys") + ONNX
    assert run(script, tmp_path, threads) == expected


def test_executorch_and_tvm_count_the_cpus_of_the_process():
    script = PINNED + "from vmp_edge.machine import default_threads; print(default_threads())"
    assert run(script) == ["1"]


def test_tvm_takes_its_own_variable(monkeypatch):
    pytest.importorskip("tvm_ffi")
    script = """
import os
os.environ["TVM_NUM_THREADS"] = "5"
from vmp_edge.runtimes.tvm import engine
print(engine._default_threads())
"""
    assert run(script) == ["5"]


def test_pytorch_takes_no_more_than_the_process_may_use():
    pytest.importorskip("torch")
    script = """
import os, torch
from types import SimpleNamespace
from vmp_edge.runtimes.torch import engine
engine._load = lambda bundle: None
torch.set_num_threads(2)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # after PyTorch has counted
engine.TorchEngine(SimpleNamespace(manifest=SimpleNamespace(features=0)))
print(torch.get_num_threads())
"""
    assert run(script) == ["1"]
