"""ONNX Runtime: standard operators only."""

from __future__ import annotations

from vmp_edge.engines import EngineRecord

RECORD = EngineRecord(
    name="onnxruntime",
    factory="vmp_edge.runtimes.onnxruntime.engine:OnnxRuntimeEngine",
    extra="onnxruntime",
    lowering="vmp_edge.compile.lowerings.onnx.lowering",
    precisions=("fp32", "fp16", "int8", "int8-dynamic", "int8-weight-only", "16a8w"),
    per_frame=True,
    steps=("fp32",),
    distribution="onnxruntime",
    trial="vmp_edge.runtimes.trials:onnxruntime",
)
