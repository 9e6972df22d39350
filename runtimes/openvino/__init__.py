"""OpenVINO on the CPU, from the ONNX model."""

from __future__ import annotations

from vmp_edge.engines import EngineRecord

RECORD = EngineRecord(
    name="openvino",
    factory="vmp_edge.runtimes.openvino.engine:OpenVinoEngine",
    extra="openvino",
    lowering="vmp_edge.compile.lowerings.openvino",
    precisions=("fp32", "int8", "int8-dynamic", "int8-weight-only"),
    per_frame=True,
    tolerance=1e-3,  # docs/targets/openvino.md
    distribution="openvino",
    trial="vmp_edge.runtimes.trials:openvino",
)
