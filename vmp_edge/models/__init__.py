"""The source model of the family, its presets, and the loading of published checkpoints. Needs PyTorch."""

from __future__ import annotations

from vmp_edge.models.checkpoint import load_checkpoint
from vmp_edge.models.options import FAMILIES, PRESETS, ModelOptions, preset
from vmp_edge.models.videomamba import VideoMamba, create

__all__ = ["FAMILIES", "PRESETS", "ModelOptions", "VideoMamba", "create", "load_checkpoint", "preset"]
