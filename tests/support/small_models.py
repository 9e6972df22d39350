"""Small models for the tests of lowerings."""

import torch

from vmp_edge.models import ModelOptions, VideoMamba

SMALL = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}
VARIANTS = {
    "pro": {},
    "pro-conv-tubelet": {"scan_input": "conv", "tubelet_size": 2},
    "vanilla": {"directions": "separate", "initial_state": "zero", "mask_backward": False, "scan_input": "conv"},
    "separate-masked": {"directions": "separate", "mask_backward": True},
    "temporal-first": {"scan_order": "temporal_first"},
    "spatiotemporal": {"scan_order": "spatiotemporal"},
}
# What a model reads in place of its class token. These are options to add to those of a small model.
READOUTS = {
    "mean": {"directions": "forward", "mask_backward": False, "readout": "mean"},
    "pooled-frames": {**VARIANTS["vanilla"], "readout": "pooled_frames", "projection": 16, "num_classes": 0},
}
# Causal models. The last is a stream's hardest: two frames a step, states at each place, and a class token at the end.
CAUSAL = {
    name: {"causal": True, "readout": "mean", **options}
    for name, options in {
        "pro": {},
        "vanilla": VARIANTS["vanilla"],
        "forward": {"directions": "forward", "mask_backward": False},
        "temporal-first": {"scan_order": "temporal_first"},
        "one-tap": {"d_conv": 1},
        "spatiotemporal": {
            "scan_order": "spatiotemporal", "readout": "class_token", "scan_input": "conv", "tubelet_size": 2
        },
    }.items()
}  # fmt: skip


def make_model(**options):
    """A small model whose norms, skips and decays are away from their first values, so that folding them shows."""
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**{**SMALL, **options})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(
            ("norm.weight", "norm_f.weight", ".D", ".D_b", "A_log", "A_b_log", "head.bias", "pool_norm.bias")
        ):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def stepped(model, video, features=False):
    """The outputs of a causal model after each step of one video, (steps, classes), and its last state, (1, n).

    Args:
        features: To have the features after the logits, (steps, classes + C).
    """
    with torch.no_grad():
        logits, after, state = model.forward_steps(torch.as_tensor(video))
    return (torch.cat([logits, after], 2) if features else logits)[0].numpy(), state.numpy()
