"""The source model of VideoMamba and VideoMambaPro, its presets, and the loading of checkpoints. Needs PyTorch."""

from __future__ import annotations

from .checkpoint import load_checkpoint
from .options import FAMILIES, PRESETS, ModelOptions, preset
from .videomamba import VideoMamba, create

__all__ = ["FAMILIES", "PRESETS", "ModelOptions", "VideoMamba", "create", "load_checkpoint", "preset"]
