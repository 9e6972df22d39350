"""Checkpoints as the published training programs write them, with random weights and small sizes.

The tensors are those of our own source model, which has the published names. What lies around them is of the programs:
video_sm, image_sm, video_mm (OpenGVLab/VideoMamba) and videomambapro (hotfinda/VideoMambaPro).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vmp_edge.models.options import FAMILIES, ModelOptions
from vmp_edge.models.videomamba import VideoMamba

State = dict[str, Tensor]
FRAMES, SIZE, WIDTH, CLASSES = 4, 32, 32, 5


def make(family: str, classes: int = CLASSES, **options: Any) -> VideoMamba:
    """Return a small model of a family."""
    directions = options.get("directions", "separate")
    traits = {**FAMILIES[family], "directions": directions, "mask_backward": directions == "shared"}
    if directions == "forward":
        traits["scan_input"] = "conv"
    sizes = {"embed_dim": WIDTH, "depth": 2, "num_frames": FRAMES, "image_size": SIZE, "num_classes": classes}
    return VideoMamba(ModelOptions(**{**traits, **sizes, **options})).eval()


def prefixed(prefix: str, state: State) -> State:
    """Return a state dict with a prefix before each name."""
    return OrderedDict((prefix + name, value) for name, value in state.items())


def of_images(state: State) -> State:
    """Return the tensors as image_sm has them: patches of one frame, and no positions in time."""
    image = {name: value for name, value in state.items() if name != "temporal_pos_embedding"}
    image["patch_embed.proj.weight"] = image["patch_embed.proj.weight"][:, :, 0]
    return image


def of_pretraining(state: State) -> State:
    """Return the tensors as masked pre-training has them: another name of the last norm, and a decoder."""
    body = {name.replace("norm_f.", "norm."): value for name, value in state.items() if not name.startswith("head.")}
    decoder = {"clip_decoder.0.head.weight": torch.randn(8, WIDTH), "clip_decoder.0.norm.bias": torch.randn(8)}
    return {**body, **decoder}


def of_videos_and_texts(state: State, bert: str = "text_encoder.bert.", teacher: bool = True) -> State:
    """Return the tensors of a model of video_mm around those of the vision encoder."""
    vision = prefixed("vision_encoder.", of_pretraining(state))
    vision |= {f"vision_encoder.pool_norm.{part}": torch.randn(WIDTH) for part in ("weight", "bias")}
    texts = {f"{bert}embeddings.position_ids": torch.arange(8), f"{bert}embeddings.LayerNorm.bias": torch.randn(8)}
    outside = {"vision_proj.weight": torch.randn(6, WIDTH), "vision_proj.bias": torch.randn(6)}
    outside |= {"text_proj.weight": torch.randn(6, 8), "itm_head.bias": torch.randn(2), "temp": torch.tensor(0.07)}
    seen = {"clip_teacher.proj": torch.randn(8, 8)} if teacher else {}
    return {**vision, **seen, **texts, **outside}


def optimizer(state: State) -> dict[str, Any]:
    """Return the state of an optimiser."""
    parameter = torch.nn.Parameter(next(iter(state.values())).clone())
    adam = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    adam.step()
    return adam.state_dict()


def arguments(model: str) -> argparse.Namespace:
    """Return a training program's arguments."""
    return argparse.Namespace(model=model, nb_classes=CLASSES, lr=1e-3, opt_betas=(0.9, 0.999), output_dir=None)


def trained(state: State, **others: Any) -> dict[str, Any]:
    """Return what a training program saves."""
    return {"model": state, "optimizer": optimizer(state), "epoch": 9, "scaler": {"scale": 65536.0}, **others}


def of_deepspeed(state: State) -> dict[str, Any]:
    """Return what DeepSpeed saves in mp_rank_00_model_states.pt."""
    half = OrderedDict((name, value.bfloat16()) for name, value in state.items())
    shapes = [OrderedDict((name, value.shape) for name, value in state.items())]
    rest = {"buffer_names": [], "optimizer": None, "sparse_tensor_module_names": set(), "ds_version": "0.9.2"}
    return {"module": half, "param_shapes": shapes, "ds_config": {"train_batch_size": 64}, "epoch": 3, **rest}


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        content: Makes the content from the source model's tensors, and those of another model for averages.
        family: The model's family.
        decided: The family that is found out without a word from the user; None if it is `family`.
        options: Options of the model in which it differs from the others.
        half: Whether the weights are bfloat16.
        images: Whether it is a model of images.
        says: What loading says besides the family.
        left_out: The beginnings of names that are left out.
    """

    content: Callable[[State, State], Any]
    family: str = "videomamba"
    decided: str | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    half: bool = False
    images: bool = False
    says: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def _pro(content: Callable[[State, State], Any], **fields: Any) -> Format:
    """A file of VideoMambaPro, whose separate directions look like VideoMamba's."""
    return Format(content, "videomambapro", **{"decided": "videomamba", **fields})


_HEADLESS = {"classes": 0}
_TWO = ("holds several models; took 'model' and not model_ema",)
_TEXTS = ("vision_encoder.clip_decoder", "vision_encoder.pool_norm")
FORMATS: dict[str, Format] = {
    "video, bare": Format(lambda s, _: s),
    "video, model": Format(lambda s, _: {"model": s}),
    "video, module": Format(lambda s, _: {"module": s}),
    "video, DeepSpeed": Format(lambda s, _: of_deepspeed(s), half=True),
    "video, Kinetics-710": Format(lambda s, _: {"model": s}, options={"classes": 710}),
    "video, tubelets of two": Format(lambda s, _: {"model": s}, options={"tubelet_size": 2}),
    "video, 64 frames": Format(lambda s, _: {"model": s}, options={"num_frames": 64, "classes": 48}),
    "video, DistributedDataParallel": Format(lambda s, _: prefixed("module.", s)),
    "video, MMAction2": Format(lambda s, _: {"state_dict": prefixed("backbone.", s), "meta": {}}),
    "video, timm with averages": Format(
        lambda s, e: {"state_dict": s, "state_dict_ema": e, "arch": "videomamba_tiny"},
        says=("took 'state_dict' and not state_dict_ema",),
    ),
    "images, bare": Format(lambda s, _: of_images(s), images=True),
    "images, model": Format(lambda s, _: {"model": of_images(s)}, images=True),
    "images, main.py": Format(
        lambda s, e: trained(
            of_images(s), model_ema=of_images(e), lr_scheduler={"t_initial": 300}, args=arguments("videomamba_tiny")
        ),
        images=True,
        says=_TWO,
    ),
    "images, main.py without averages": Format(lambda s, _: trained(of_images(s), model_ema=None), images=True),
    "images, twice the size": Format(lambda s, _: {"model": of_images(s)}, images=True, options={"image_size": 64}),
    "images, distilled": Format(
        lambda s, e: {"model": of_images(s) | {"distill_head.1.weight": torch.ones(3)}, "model_ema": of_images(e)},
        images=True,
        says=_TWO,
        left_out=("distill_head",),
    ),
    "pre-training": Format(lambda s, _: {"model": of_pretraining(s)}, options=_HEADLESS, left_out=("clip_decoder",)),
    "pre-training, trainer": Format(
        lambda s, _: trained(of_pretraining(s), args=arguments("pretrain_videomamba_tiny")),
        options=_HEADLESS,
        left_out=("clip_decoder",),
    ),
    "video and text, trainer": Format(
        lambda s, _: trained(of_videos_and_texts(s), config={"model": {"embed_dim": 6}}, global_step=10),
        options=_HEADLESS,
        left_out=_TEXTS,
    ),
    "video and text": Format(lambda s, _: {"model": of_videos_and_texts(s)}, options=_HEADLESS, left_out=_TEXTS),
    "video and text, retrieval": Format(
        lambda s, _: {"model": of_videos_and_texts(s, "text_encoder.", teacher=False)},
        options=_HEADLESS,
        left_out=_TEXTS,
    ),
    "pro": _pro(lambda s, _: {"model": s}),
    "pro, trainer": _pro(
        lambda s, _: trained(s, args=arguments("videomambapro_tiny")), decided="videomambapro", says=()
    ),
    "pro, averages": _pro(lambda s, e: {"model": s, "model_ema": e, "epoch": 3}, says=_TWO),
    "pro, regression": _pro(lambda s, _: {"model": s}, options={"classes": 1}),
    "pro, without a head": _pro(lambda s, _: {"model": s}, options=_HEADLESS),
    "pro, shared directions": _pro(
        lambda s, _: {"model": s}, decided="videomambapro", options={"directions": "shared"}
    ),
    "pro, one direction": _pro(
        lambda s, _: {"model": s},
        decided="videomambapro",
        options={"directions": "forward"},
        says=("scans in one direction", "its logits do not depend on the clip"),
    ),
    "pro, pre-training": _pro(lambda s, _: {"model": of_pretraining(s)}, options=_HEADLESS, left_out=("clip_decoder",)),
    "pro, pre-training with a prefix": _pro(
        lambda s, _: {"model": prefixed("encoder.", of_pretraining(s))},
        options=_HEADLESS,
        left_out=("encoder.clip_decoder",),
    ),
}


def assert_is(loaded: VideoMamba, state: dict[str, Tensor]) -> None:
    """Check that a model has exactly the weights of a state dict, as float32."""
    for key, value in loaded.state_dict().items():
        torch.testing.assert_close(value, state[key].float(), rtol=0, atol=0)
