"""TVM: one shared library with the native scan, or with CUDA kernels."""

from __future__ import annotations

from vmp_edge.engines import EngineRecord

RECORD = EngineRecord(
    name="tvm",
    factory="vmp_edge.runtimes.tvm.engine:TvmEngine",
    extra="tvm",
    lowering="vmp_edge.compile.lowerings.tvm.lowering",
    precisions=("fp32", "fp16", "int8", "int8-dynamic", "int8-weight-only"),
    per_frame=True,
    steps=("fp32",),
    distribution="apache-tvm",
    trial="vmp_edge.runtimes.trials:tvm",
)
