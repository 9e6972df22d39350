"""The source model of the family, its presets, and the loading of published checkpoints. Needs PyTorch."""

from __future__ import annotations

from .checkpoint import load_checkpoint
from .options import FAMILIES, PRESETS, ModelOptions, preset
from .videomamba import VideoMamba, create

__all__ = ["FAMILIES", "PRESETS", "ModelOptions", "VideoMamba", "create", "load_checkpoint", "preset"]
