"""The options of the one model class, and presets: named architectures with published sizes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError

CHOICES: dict[str, tuple[str, ...]] = {
    "directions": ("separate", "shared", "forward"),
    "initial_state": ("zero", "first_input"),
    "scan_input": ("conv", "projection"),
    "scan_order": ("spatial_first", "temporal_first", "spatiotemporal"),
    "readout": ("class_token", "mean", "pooled_frames"),
    "stem": ("none", "efficientnet_lite0"),
}
STEM_STRIDE = 32  # pixels of a frame for one of the stem's maps


@dataclass(frozen=True)
class ModelOptions:
    """The architecture of one model of the family.

    Attributes:
        directions: ``separate`` if the backward direction has its own convolution and projections, ``shared`` if it has
            those of the forward direction, or ``forward`` if there is no backward direction, as in Mamba (arXiv
            2312.00752) and in the default of the released VideoMambaPro code (``bimamba_type`` "none").
        initial_state: ``zero``, or ``first_input``: VideoMambaPro's elemental residual (arXiv 2406.19006, section 4).
        mask_backward: Use VideoMambaPro's masked backward computation (arXiv 2406.19006, section 4).
        scan_input: The input of the scan: ``conv`` for SiLU(conv(x)), or ``projection`` for x before the convolution,
            as in the released VideoMambaPro code.
        scan_order: ``spatial_first`` scans frame by frame, ``temporal_first`` place by place. ``spatiotemporal``
            alternates between the two from layer to layer (VideoMamba, arXiv 2403.06977, section 3.2; its "v1", in
            which half of the layers scan in each order).
        patch_size: Pixels of a patch's side.
        tubelet_size: Frames in a patch.
        embed_dim: Channels of a token, C.
        depth: Number of blocks.
        d_state: States of a channel, N.
        expand: Channels of the scan, divided by ``embed_dim``.
        d_conv: Taps of the causal convolution, K.
        num_frames: Frames of a clip, T.
        image_size: Pixels of a frame's side.
        readout: What the head reads: ``class_token``, the first token, or ``mean``, the mean of all other tokens. In a
            model with one direction the first token sees no other one, so that only the mean depends on the clip.
            ``pooled_frames`` is for video-text models without a head, whose feature is the mean of unit vectors, one
            of each frame: the class token plus the mean of the frame's patches, normalised, and projected to where
            texts are compared with it (VideoMamba, video_mm).
        projection: Channels of a video-text model's feature, P, for the readout ``pooled_frames``; 0 for others.
        stem: What frames go through before they are embedded: ``none``, or ``efficientnet_lite0``, the convolutions of
            an image network with frozen weights, of whose last maps each pixel, 32 of a frame, becomes a token.
        num_classes: Outputs of the head; 0 for a backbone without a head, which gives features alone.
        causal: Go through a video step by step, a tubelet at a time, with a state that is carried from step to step:
            see `vmp_edge.models.steps`. Such a model takes any number of frames; ``num_frames`` is that of a clip in
            training. Its readouts are ``mean``, of a step's tokens, and ``class_token``, one at the end of each step.
    """

    directions: str = "shared"
    initial_state: str = "first_input"
    mask_backward: bool = True
    scan_input: str = "projection"
    scan_order: str = "spatial_first"
    readout: str = "class_token"
    patch_size: int = 16
    tubelet_size: int = 1
    embed_dim: int = 192
    depth: int = 24
    d_state: int = 16
    expand: int = 2
    d_conv: int = 4
    num_frames: int = 8
    image_size: int = 224
    num_classes: int = 400
    projection: int = 0
    stem: str = "none"
    causal: bool = False

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("num_classes", "projection") else 1
            if field.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise UsageError(f"{field.name} is {value!r}; it must be a positive whole number")
            if field.type == "bool" and not isinstance(value, bool):
                raise UsageError(f"{field.name} is {value!r}; it must be true or false")
        if self.image_size % self.patch_size:
            raise UsageError(f"image_size {self.image_size} is not a multiple of the patch size {self.patch_size}")
        if self.directions == "forward" and self.mask_backward:
            raise UsageError("mask_backward is true, but a model with directions 'forward' has no backward direction")
        if (self.readout == "pooled_frames") != (self.projection > 0):
            raise UsageError("the readout 'pooled_frames' needs a projection, and no other one has any")
        if self.projection and self.num_classes:
            raise UsageError("a model with the readout 'pooled_frames' gives features alone: num_classes must be 0")
        if self.stem != "none" and (self.patch_size, self.tubelet_size) != (STEM_STRIDE, 1):
            raise UsageError(f"a model with a stem has patches of {STEM_STRIDE} pixels of single frames")
        if self.causal and self.readout == "pooled_frames":
            raise UsageError("a causal model has the readout 'class_token' or 'mean', not 'pooled_frames'")
        if self.causal and self.readout == "class_token" and self.scan_order == "temporal_first":
            raise UsageError(
                "in a causal model with the scan order 'temporal_first' the class token sees no patch: use the readout "
                "'mean', or the order 'spatiotemporal'"
            )
        if self.num_frames % self.tubelet_size:
            raise UsageError(f"num_frames {self.num_frames} is not a multiple of the tubelet size {self.tubelet_size}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelOptions:
        """Make options from those in a manifest or a checkpoint.

        Raises:
            UsageError: A name is unknown, or a value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"unknown model option {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**values)

    @property
    def d_inner(self) -> int:
        """The channels of the scan, D."""
        return self.expand * self.embed_dim

    @property
    def features(self) -> int:
        """The number of features of a clip."""
        return self.projection or self.embed_dim

    @property
    def dt_rank(self) -> int:
        """The rank of the step size projection (Mamba's "auto")."""
        return math.ceil(self.embed_dim / 16)

    @property
    def grid(self) -> tuple[int, int]:
        """The number of tubelets in time, and of patches along a frame's side."""
        return self.num_frames // self.tubelet_size, self.image_size // self.patch_size

    @property
    def length(self) -> int:
        """The number of tokens of a clip, with its class token or those of its steps, L."""
        steps, side = self.grid
        return steps * self.step_tokens if self.causal else 1 + steps * side * side

    @property
    def step_tokens(self) -> int:
        """The number of tokens of a causal model's step, P, with its class token if there is one."""
        return self.grid[1] ** 2 + (self.readout == "class_token")

    def scans_time_first(self, layer: int) -> bool:
        """Return whether a layer scans place by place instead of frame by frame."""
        return self.scan_order == "temporal_first" or (self.scan_order == "spatiotemporal" and layer % 2 == 1)


VIDEOMAMBA: dict[str, Any] = {
    "directions": "separate",
    "initial_state": "zero",
    "mask_backward": False,
    "scan_input": "conv",
}
VIDEOMAMBAPRO: dict[str, Any] = {
    "directions": "shared",
    "initial_state": "first_input",
    "mask_backward": True,
    "scan_input": "projection",
}
FAMILIES: dict[str, dict[str, Any]] = {"videomamba": VIDEOMAMBA, "videomambapro": VIDEOMAMBAPRO}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "depth": 24},
    "small": {"embed_dim": 384, "depth": 24},
    "middle": {"embed_dim": 576, "depth": 32},
    "base": {"embed_dim": 768, "depth": 24},  # published for images only
}
PRESETS: dict[str, ModelOptions] = {
    f"{family}-{size}": ModelOptions(**FAMILIES[family], **SIZES[size]) for family in FAMILIES for size in SIZES
}
PRESETS["egomotion-nano"] = ModelOptions(
    **{**VIDEOMAMBAPRO, "scan_input": "conv", "scan_order": "temporal_first"},
    embed_dim=96,
    depth=4,
    tubelet_size=2,
    num_frames=8,
    image_size=64,
    num_classes=10,
)
CAUSAL: dict[str, Any] = {"causal": True, "readout": "mean"}
PRESETS |= {
    f"{name}-causal": dataclasses.replace(PRESETS[name], **CAUSAL)
    for name in (f"{family}-{size}" for family in FAMILIES for size in ("tiny", "small", "middle"))
}
# Half of its layers scan over time at each place, which is better on camera motion than none and than all.
PRESETS["egomotion-nano-causal"] = dataclasses.replace(PRESETS["egomotion-nano"], **CAUSAL, scan_order="spatiotemporal")


def preset(name: str, **overrides: Any) -> ModelOptions:
    """Return the options of a preset, with some of them changed.

    Args:
        name: The preset, a key of `PRESETS`.
        overrides: New values for fields of `ModelOptions`.

    Raises:
        UsageError: The name or an option is unknown, or a value is out of range.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown model {name!r}; known are {', '.join(sorted(PRESETS))}")
    return ModelOptions.from_dict({**dataclasses.asdict(PRESETS[name]), **overrides})
