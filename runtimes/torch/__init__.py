"""PyTorch: the source model itself, as the reference for the other engines."""

from __future__ import annotations

from vmp_edge.engines import EngineRecord

RECORD = EngineRecord(
    name="torch",
    factory="vmp_edge.runtimes.torch.engine:TorchEngine",
    lowering="vmp_edge.compile.lowerings.torch",
    precisions=("fp32",),
    steps=("fp32",),
    distribution="torch",
    trial="vmp_edge.runtimes.trials:torch",
)
