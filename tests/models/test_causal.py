"""Causal models: steps against whole videos, the state, causality, training, checkpoints."""

import dataclasses
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vmp_edge import ops
from vmp_edge.errors import UsageError
from vmp_edge.models import PRESETS, ModelOptions, VideoMamba, create, load_checkpoint, make_causal, preset
from vmp_edge.models.options import VIDEOMAMBA, VIDEOMAMBAPRO
from vmp_edge.models.stream_state import layout, program_states
from vmp_edge.ops import _native, reference

SMALL = {"embed_dim": 32, "depth": 2, "image_size": 48, "num_frames": 4, "num_classes": 5, "causal": True}
FORWARD = {"directions": "forward", "initial_state": "first_input", "mask_backward": False, "scan_input": "conv"}
KINDS = {
    "videomamba": VIDEOMAMBA,
    "videomambapro": VIDEOMAMBAPRO,
    "nano": {**VIDEOMAMBAPRO, "scan_input": "conv"},
    "forward": FORWARD,
}
ALL = [
    pytest.param({**KINDS[kind], "scan_order": order, "readout": readout, "tubelet_size": tubelet}, id="-".join(id_))
    for kind, order, readout, tubelet in itertools.product(
        KINDS, ("spatial_first", "temporal_first", "spatiotemporal"), ("mean", "class_token"), (1, 2)
    )
    for id_ in [(kind, order, readout, f"tubelet{tubelet}")]
    if (order, readout) != ("temporal_first", "class_token")  # which is refused
]
every_kind = pytest.mark.parametrize("options", ALL)


def make(options=None, seed=0, **more):
    """Return a model whose weights are random all over, so that everything counts."""
    torch.manual_seed(seed)
    model = VideoMamba(ModelOptions(**{**SMALL, **(options or {}), **more})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def video_of(model, steps=5, batch=2, seed=1):
    size, frames = model.options.image_size, steps * model.options.tubelet_size
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def stepped(model, video, state=None):
    """Return the logits and features of each step, and the last state."""
    state = model.initial_state(len(video)) if state is None else state
    outputs = []
    for frames in video.split(model.options.tubelet_size, dim=2):
        logits, features, state = model.step(frames, state)
        outputs.append((logits, features))
    logits, features = (torch.stack(parts, 1) for parts in zip(*outputs, strict=True))
    return logits, features, state


@every_kind
@torch.no_grad()
def test_a_video_equals_its_steps_bit_for_bit_in_any_split(options):
    model = make(options)
    video, tubelet = video_of(model), model.options.tubelet_size
    logits, features, state = stepped(model, video)
    assert logits.shape == (2, 5, 5) and features.shape == (2, 5, 32)
    assert logits.std(1).min() > 1e-4  # the steps differ
    assert torch.equal(model(video), logits[:, -1])
    assert torch.equal(model.forward_features(video), features[:, -1])
    assert torch.equal(model(video[:, :, : 3 * tubelet]), logits[:, 2])
    assert all(map(torch.equal, model.forward_steps(video), (logits, features, state)))
    first = model.forward_steps(video[:, :, : 2 * tubelet])
    second = model.forward_steps(video[:, :, 2 * tubelet :], first[2])
    assert torch.equal(torch.cat([first[0], second[0]], 1), logits) and torch.equal(second[2], state)


@pytest.mark.parametrize("isa", _native.isas())
def test_a_video_equals_its_steps_on_every_instruction_set(isa):
    model = make(KINDS["videomambapro"], scan_order="spatiotemporal")
    video = video_of(model)
    _native.set_isa(isa)
    try:
        assert torch.equal(model(video), stepped(model, video)[0][:, -1])
    finally:
        _native.set_isa(None)


@every_kind
def test_training_computes_all_steps_at_once_and_the_same(options):
    model = make(options)
    video = video_of(model)
    logits, features, state = stepped(model, video)
    model.train()
    torch.testing.assert_close(model(video), logits[:, -1], atol=1e-5, rtol=1e-5)
    for got, expected in zip(model.forward_steps(video), (logits, features, state), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    tubelet = model.options.tubelet_size
    _, _, middle = stepped(model, video[:, :, : 2 * tubelet])
    after = model.forward_steps(video[:, :, 2 * tubelet :], middle)
    torch.testing.assert_close(after[0], logits[:, 2:], atol=1e-5, rtol=1e-5)


@every_kind
def test_gradients_of_training_are_those_through_the_steps(options):
    model = make(options)
    video = video_of(model, steps=3).requires_grad_()
    weight = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2))
    grads = []
    for training in (False, True):
        model.train(training)
        total = (model.forward_steps(video)[0] * weight).sum()
        grads.append(torch.autograd.grad(total, [video, *model.parameters()], allow_unused=True))
    for (name, _), by_step, at_once in zip([("video", 0), *model.named_parameters()], *grads, strict=True):
        assert by_step.abs().sum() > 0 or options["readout"] == "class_token", name
        torch.testing.assert_close(at_once, by_step, atol=1e-5 * float(by_step.abs().max()), rtol=1e-4, msg=name)


def test_training_has_no_loop_over_the_steps():
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            Count.calls += 1
            return function(*args, **(kwargs or {}))

    model = make(scan_order="spatiotemporal").train()
    counts = []
    for steps in (2, 7):
        Count.calls = 0
        with Count():
            model(video_of(model, steps)).sum().backward()
        counts.append(Count.calls)
    assert abs(counts[0] - counts[1]) < 5  # a copy more or less


@every_kind
@torch.no_grad()
def test_no_later_step_is_seen_and_every_earlier_one_is(options):
    model = make(options)
    video, tubelet = video_of(model), model.options.tubelet_size
    before = model.forward_steps(video)[0]
    for step in range(5):
        changed = video.clone()
        changed[:, :, step * tubelet : (step + 1) * tubelet] += 1
        after = model.forward_steps(changed)[0]
        assert torch.equal(after[:, :step], before[:, :step])
        assert all((after[:, later] - before[:, later]).abs().max() > 0 for later in range(step, 5))


@pytest.mark.parametrize("directions", ["shared", "separate"])
@torch.no_grad()
def test_a_step_sees_its_own_frames_whole(directions):
    """The first patch's token depends on the last patch, by the backward direction."""
    masked = directions == "shared"
    model = make(
        {"directions": directions, "mask_backward": masked, "scan_order": "temporal_first", "readout": "mean"}, depth=1
    )
    video = video_of(model, steps=1)
    changed = video.clone()
    changed[:, :, :, -16:, -16:] += 1
    tokens, after = model.forward_tokens(video), model.forward_tokens(changed)
    assert tokens.shape == (2, 1, 9, 32)
    assert (tokens[:, :, 0] - after[:, :, 0]).abs().max() > 1e-6


@torch.no_grad()
def test_streams_of_a_batch_are_each_as_far_as_they_are():
    for options in ({"scan_order": "spatial_first"}, {"scan_order": "spatiotemporal", "readout": "mean"}):
        model = make(options)
        video = video_of(model, batch=3)
        alone = [stepped(model, video[i : i + 1, :, : i + 2]) for i in range(3)]  # of 2, 3 and 4 steps
        state = torch.cat([model.initial_state(), *(part[2] for part in alone[1:])])
        frames = torch.stack([video[0, :, :1], video[1, :, 3:4], video[2, :, 4:5]])
        logits, features, after = model.step(frames, state)
        for i in range(3):
            single = model.step(frames[i : i + 1], state[i : i + 1])
            for got, expected in zip((logits, features, after), single, strict=True):
                torch.testing.assert_close(got[i : i + 1], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_zeros_in_a_row_of_the_state_start_that_stream_afresh():
    model = make()
    video = video_of(model)
    _, _, state = stepped(model, video)
    state[1] = 0
    logits = model.step(video[:, :, :1], state)[0]
    fresh = model.step(video[:, :, :1], model.initial_state(2))[0]
    assert torch.equal(logits[1], fresh[1]) and not torch.equal(logits[0], fresh[0])


@every_kind
@torch.no_grad()
def test_the_state_lies_as_documented(options):
    """Recompute the first layer's state of two steps from its tokens, by the reference."""
    model = make(options)
    video = video_of(model, steps=2)
    options, where = model.options, layout(model.options)
    _, _, state = stepped(model, video)
    assert state.shape == (2, where.size) and state.dtype == torch.float32
    assert torch.equal(state[:, -1], torch.ones(2)) and where.started == where.size - 1
    places, inner = 9 + (options.readout == "class_token"), options.d_inner
    assert options.step_tokens == places
    per_place = [index for index in range(2) if options.scans_time_first(index)]
    assert where.size == 1 + sum(inner * (3 + 16) * (places if index in per_place else 1) for index in range(2))

    block = model.blocks()[0]
    tokens = model.patch_embed(video) + model.pos_embed[:, None, 1:]
    if options.readout == "class_token":
        tokens = torch.cat([tokens, (model.cls_token + model.pos_embed[:, :1]).expand(2, 2, 1, -1)], 2)
    x = block.mixer.in_proj(block.norm(tokens)).chunk(2, -1)[0]
    over_time = options.scans_time_first(0)
    line = x.transpose(1, 2).reshape(-1, 2, inner) if over_time else x.reshape(2, -1, inner)
    inputs, h = where.inputs[0], where.states[0]
    padded = torch.cat([torch.zeros(len(line), 3, inner), line], 1)
    torch.testing.assert_close(state[:, inputs.start : inputs.stop].reshape(-1, 3, inner), padded[:, -3:])
    conv = block.mixer.conv1d
    c = reference.causal_conv_silu(line, conv.weight.squeeze(1), conv.bias)
    u, dt, B, C = block.mixer.project(line, c, "")
    _, last = reference.selective_scan(
        u, dt, -block.mixer.A_log.exp(), B, C, dt_bias=block.mixer.dt_proj.bias, initial_state=options.initial_state,
        return_state=True,
    )  # fmt: skip
    torch.testing.assert_close(state[:, h.start : h.stop].reshape(-1, inner, 16), last, atol=1e-5, rtol=1e-5)


def test_the_sizes_of_states():
    tiny = layout(preset("videomambapro-tiny-causal"))
    assert tiny.size * 4 / 1e6 == pytest.approx(0.7, abs=0.01)  # megabytes
    over_time = layout(preset("videomambapro-tiny-causal", scan_order="temporal_first", readout="mean"))
    assert over_time.size - 1 == 196 * (tiny.size - 1)


@torch.no_grad()
@pytest.mark.parametrize("order", ["spatial_first", "spatiotemporal"])
def test_a_convolution_with_one_tap_carries_no_inputs(order):
    model = make(scan_order=order, d_conv=1)
    assert not any(torch.Size(part.shape).numel() for part in layout(model.options).inputs)
    assert not [name for name in program_states(model.options) if name.startswith("inputs")]
    video = video_of(model)
    logits, _, _ = stepped(model, video)
    assert torch.equal(model(video), logits[:, -1])


@every_kind
def test_the_states_of_a_program_are_the_vector_in_order(options):
    """Each is where the layout says, so that the vector can be cut and put together without a copy in between."""
    options = make(options).options
    where, shapes, start = layout(options), program_states(options), 0
    for name, shape in shapes.items():
        kind, _, layer = name.partition("-")
        part = {"inputs": where.inputs, "h": where.states}[kind][int(layer)] if layer else None
        assert start == (where.started if part is None else part.start), name
        if part is not None:
            assert shape[-len(part.shape) :] == part.shape and len(shape) == 3
        start += torch.Size(shape).numel()
    assert start == where.size


def test_a_long_stream_keeps_its_size_and_stays_finite():
    model = make({"scan_order": "spatiotemporal"})
    video = video_of(model, steps=8)
    state = model.initial_state(2)
    for index in range(400):
        logits, _, after = model.step(video[:, :, index % 8 : index % 8 + 1], state)
        assert after.shape == state.shape and after.data_ptr() != state.data_ptr()
        state = after
    again = model.step(video[:, :, :1], state)[0]
    assert torch.isfinite(logits).all() and torch.isfinite(again).all()


def test_the_step_exports_with_one_node_for_each_operator():
    model = make({"scan_order": "spatiotemporal"})

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, frames, state):
            return self.model.step(frames, state)

    frames, state = video_of(model, steps=1, batch=1), model.initial_state()
    with torch.no_grad():
        program = torch.export.export(Step(), (frames, state), strict=False)
        targets = [str(node.target) for node in program.graph.nodes if "vmp." in str(node.target)]
        assert targets == [
            "vmp.causal_conv_silu_with_state.default",
            "vmp.bi_selective_scan_with_state.default",
            "vmp.causal_conv_silu_with_state.default",  # of the layer over time
            "vmp.selective_scan_with_state.default",
            "vmp.selective_scan.default",
        ]
        for _ in range(3):
            results, expected = program.module()(frames, state), model.step(frames, state)
            assert all(map(torch.equal, results, expected))
            state = expected[2]


@pytest.mark.parametrize("name", sorted(name for name in PRESETS if name.endswith("-causal")))
def test_presets(name):
    options, plain = preset(name), preset(name.removesuffix("-causal"))
    assert options.causal and options.readout == "mean" and not plain.causal
    assert options.scan_order == ("spatiotemporal" if name == "egomotion-nano-causal" else plain.scan_order)
    model = create(name, depth=2, image_size=32, num_classes=7)
    for steps in (1, 3):
        assert model(torch.randn(2, 3, steps * options.tubelet_size, 32, 32)).shape == (2, 7)


def test_all_published_sizes_have_a_causal_preset():
    names = {f"{family}-{size}" for family in ("videomamba", "videomambapro") for size in ("tiny", "small", "middle")}
    assert {name.removesuffix("-causal") for name in PRESETS if name.endswith("-causal")} == {*names, "egomotion-nano"}


def test_a_causal_model_has_no_position_in_time_and_a_class_token_only_to_read_it():
    mean, class_token = make({"readout": "mean"}), make({"readout": "class_token"})
    assert "temporal_pos_embedding" not in {**mean.state_dict(), **class_token.state_dict()}
    assert set(class_token.state_dict()) - set(mean.state_dict()) == {"cls_token"}


def test_layers_over_time_start_with_longer_steps():
    torch.manual_seed(0)
    model = create("videomambapro-tiny-causal", scan_order="spatiotemporal", depth=2)
    medians = [torch.nn.functional.softplus(b.mixer.dt_proj.bias).median() for b in model.blocks()]
    assert 12 < medians[1] / medians[0] < 21


@torch.no_grad()
def test_a_model_without_classes_gives_its_features():
    model = make(num_classes=0)
    logits, features, _ = model.step(video_of(model, steps=1), model.initial_state(2))
    assert torch.equal(logits, features) and features.shape == (2, 32)


@torch.no_grad()
def test_float64_keeps_its_state_in_float64():
    model = make().double()
    video = video_of(model).double()
    logits, _, state = stepped(model, video)
    assert state.dtype == torch.float64
    torch.testing.assert_close(logits.float(), stepped(make(), video.float())[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("readout", ["mean", "class_token"])
@torch.no_grad()
def test_a_checkpoint_is_saved_and_loaded(readout, tmp_path):
    model = make({"readout": readout, "scan_order": "spatiotemporal"}, image_size=32)
    file = tmp_path / "causal.pth"
    torch.save({"model": model.state_dict(), "options": dataclasses.asdict(model.options)}, file)
    loaded = load_checkpoint(file)
    assert loaded.options == model.options and not loaded.training
    video = video_of(model)
    assert torch.equal(loaded(video), model(video))
    larger = load_checkpoint(file, num_frames=16, image_size=64)
    assert larger(torch.randn(1, 3, 5, 64, 64)).shape == (1, 5)


@torch.no_grad()
def test_a_model_starts_from_the_weights_of_one_that_is_not_causal():
    source = create("videomambapro-tiny", embed_dim=32, depth=2, image_size=32, num_classes=5)
    model = make_causal(source, scan_order="spatiotemporal")
    assert model.options == dataclasses.replace(
        source.options, causal=True, readout="mean", scan_order="spatiotemporal"
    )
    weights = source.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert set(weights) - set(model.state_dict()) == {"cls_token", "temporal_pos_embedding"}
    assert "cls_token" in make_causal(source, readout="class_token").state_dict()


def test_what_does_not_fit_is_refused():
    model = make(tubelet_size=2)
    frames, state = video_of(model, steps=1), model.initial_state(2)
    with pytest.raises(ValueError, match="a step has 2 frames, not 4"):
        model.step(frames.repeat(1, 1, 2, 1, 1), state)
    with pytest.raises(ValueError, match=r"state is \(1, \d+\); for this video and model it is \(2, \d+\)"):
        model.step(frames, state[:1])
    with pytest.raises(ValueError, match=r"video is \(2, 3, 1, 48, 48\).* takes \(B, 3, a multiple of 2, 48, 48\)"):
        model(frames[:, :, :1])
    with pytest.raises(ValueError, match=r"video is \(2, 3, 2, 48, 32\)"):
        model(frames[..., :32])
    plain = create("videomambapro-tiny", depth=1)
    for call in (plain.initial_state, lambda: plain.step(frames, state), lambda: plain.forward_steps(frames)):
        with pytest.raises(ValueError, match="only causal models go step by step"):
            call()
    with pytest.raises(UsageError, match="causal is 'yes'"):
        create("videomambapro-tiny", causal="yes")
    with pytest.raises(UsageError, match="not 'pooled_frames'"):
        ModelOptions(causal=True, readout="pooled_frames", projection=4, num_classes=0)
    with pytest.raises(UsageError, match="the class token sees no patch: use the readout 'mean'"):
        ModelOptions(causal=True, scan_order="temporal_first")


def test_a_plain_model_is_what_it_was():
    assert not any(options.causal for name, options in PRESETS.items() if not name.endswith("-causal"))
    assert ops.selective_scan.__module__ == "vmp_edge.ops"
