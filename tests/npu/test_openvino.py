"""OpenVINO reads the ONNX model and gives the source model's numbers (`make test-npu`)."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("openvino", reason="needs openvino")

from vmp_edge.bundle.reading import Bundle, describe_file
from vmp_edge.compile.pipeline import Request, build
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.runtimes.openvino.engine import OpenVinoEngine

SMALL = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}
RUN_WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["onnx"] = None  # importing them now fails
import numpy as np
import vmp_edge
recognizer = vmp_edge.load(sys.argv[1], threads=1)
print(json.dumps(recognizer.predict(np.zeros((4, 32, 32, 3), np.uint8)).scores.tolist()))
"""


@pytest.fixture
def bundle(checkpoint, tmp_path):
    return build(Request(target="openvino", checkpoint=checkpoint, output=tmp_path / "bundle"))


def test_int8(checkpoint, tmp_path):
    request = Request(target="openvino", precision="int8-dynamic", checkpoint=checkpoint, output=tmp_path / "bundle")
    assert 0.98 <= build(request).manifest.parity["cosine"] < 1


def test_a_bundle_runs_without_pytorch(bundle):
    assert bundle.manifest.parity["max_difference"] <= 1e-4
    assert "openvino" in bundle.manifest.tools
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert abs(sum(json.loads(done.stdout)) - 1) < 1e-5


def test_what_it_cannot_run_is_one_line(bundle, tmp_path):
    engine = OpenVinoEngine(bundle)
    with pytest.raises(VmpError, match="OpenVINO: ") as caught:
        engine.run(np.zeros((1, 3, 2, 32, 32), np.float32))
    assert "\n" not in str(caught.value)
    engine.close()
    engine.close()
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    files = {"model.onnx": describe_file(tmp_path / "model.onnx")}
    damaged = Bundle(tmp_path, replace(bundle.manifest, files=files))
    with pytest.raises(BundleError, match=r"model\.onnx: OpenVINO cannot load it"):
        OpenVinoEngine(damaged)
