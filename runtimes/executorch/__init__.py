"""ExecuTorch: XNNPACK with the native scan on CPUs, delegates on NPUs and phones' GPUs."""

from __future__ import annotations

from vmp_edge.engines import EngineRecord

RECORD = EngineRecord(
    name="executorch",
    factory="vmp_edge.runtimes.executorch.engine:ExecuTorchEngine",
    lowering="vmp_edge.compile.lowerings.executorch",
    precisions=("fp32", "fp16", "int8", "int8-dynamic", "int8-weight-only", "16a8w"),
    per_frame=True,
    steps=("fp32",),
    distribution="executorch",
    trial="vmp_edge.runtimes.trials:executorch",
)
