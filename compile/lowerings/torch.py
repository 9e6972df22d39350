"""The lowering for the reference engine: it writes the source model's weights as they are."""

from __future__ import annotations

import dataclasses
import io

import torch

from vmp_edge.bundle.writing import Staging

from ..lowering import Exported, Lowered, Lowering
from ..target import Target

PROGRAM = "model.pth"


def lower(exported: Exported, staging: Staging, target: Target, precision: str) -> Lowered:
    """Write ``model.pth`` into a bundle; `vmp_edge.models.load_checkpoint` can read it too.

    Args:
        exported: The model.
        staging: The bundle that is being made.
        target: The target; PyTorch runs on any.
        precision: ``fp32``, the only precision of this engine.
    """
    model, buffer = exported.model, io.BytesIO()
    torch.save({"model": model.state_dict(), "options": dataclasses.asdict(model.options)}, buffer)
    staging.add(PROGRAM, buffer.getvalue())
    return Lowered(program=PROGRAM, tools={"torch": torch.__version__})


LOWERING = Lowering(lower, stems=True)
