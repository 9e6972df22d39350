"""The engines run the steps of causal models: like the source model, for many streams, and with the caller's states."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from bundles import make_manifest
from small_models import CAUSAL, make_model, stepped

from vmp_edge import engines
from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import staged_bundle
from vmp_edge.compile import graph, lowering
from vmp_edge.compile import target as targets
from vmp_edge.compile.lowering import Exported
from vmp_edge.models.stream_state import program_states
from vmp_edge.preprocessing import Preprocessing

STEPS = 6
ENGINES = [name for name in engines.ENGINES if engines.record(name).steps]
every_engine = pytest.mark.parametrize("name", ENGINES)


def write_bundle(name, model, folder):
    """Lower a causal model for an engine into a bundle, with features."""
    options = model.options
    with staged_bundle(folder) as staging:
        exported = Exported(model, graph.export(model, features=True))
        lowered = lowering.find(name).lower(exported, staging, targets.load("host"), "fp32")
        manifest = make_manifest(
            model=dataclasses.asdict(options),
            engine=name,
            frames=options.num_frames,
            preprocessing=Preprocessing(options.image_size),
            labels=tuple(map(str, range(options.num_classes))),
            program=lowered.program,
            features=options.features,
            states=program_states(options),
        )
        staging.seal(manifest)
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A function that returns a causal model and an engine with it. Each is lowered and loaded once."""
    found = {}

    def load(name, kind):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
        if (name, kind) not in found:
            model = make_model(**CAUSAL[kind])
            bundle = write_bundle(name, model, tmp_path_factory.mktemp(name) / kind)
            found[name, kind] = model, engines.create(bundle)
        return found[name, kind]

    yield load
    for _, engine in found.values():
        engine.close()


def video_of(model, steps=STEPS, batch=1, seed=0):
    shape = (batch, 3, steps * model.options.tubelet_size, 32, 32)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def step_through(engine, model, video, state=None):
    """Return the outputs of each step, (steps, B, outputs), and the last state."""
    size, tubelet = model.initial_state().shape[1], model.options.tubelet_size
    state, outputs = np.zeros((len(video), size), np.float32) if state is None else state, []
    for start in range(0, video.shape[2], tubelet):
        output, state = engine.step(video[:, :, start : start + tubelet], state)
        outputs.append(output)
    return np.stack(outputs), state


@every_engine
@pytest.mark.parametrize("kind", CAUSAL)
def test_each_step_equals_the_source_model(loaded, name, kind):
    model, engine = loaded(name, kind)
    video = video_of(model)
    outputs, state = step_through(engine, model, video)
    expected, last = stepped(model, video, features=True)
    np.testing.assert_allclose(outputs[:, 0], expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(state, last, atol=1e-4, rtol=1e-4)
    assert outputs.dtype == state.dtype == np.float32


@every_engine
def test_one_engine_serves_streams_that_are_each_as_far_as_they_are(loaded, name):
    """Streams that take turns give the numbers that each gives alone: nothing of one stays in the engine."""
    model, engine = loaded(name, "spatiotemporal")
    videos = [video_of(model, steps, seed=steps) for steps in (6, 4, 2)]
    alone = [step_through(engine, model, video) for video in videos]
    tubelet, states = model.options.tubelet_size, [np.zeros_like(state) for _, state in alone]
    for turn in range(STEPS):
        for index, video in enumerate(videos):
            if turn < video.shape[2] // tubelet:
                frames = video[:, :, turn * tubelet : (turn + 1) * tubelet]
                output, states[index] = engine.step(frames, states[index])
                np.testing.assert_array_equal(output, alone[index][0][turn])
    for state, (_, expected) in zip(states, alone, strict=True):
        np.testing.assert_array_equal(state, expected)


@every_engine
def test_a_batch_equals_its_streams(loaded, name):
    model, engine = loaded(name, "spatiotemporal")
    videos = video_of(model, batch=3)
    _, begun = step_through(engine, model, videos[:1, :, :2], None)
    states = np.concatenate([begun, np.zeros_like(begun), begun])  # the second stream starts now
    together, after = step_through(engine, model, videos, states)
    for row in range(3):
        outputs, state = step_through(engine, model, videos[row : row + 1], states[row : row + 1])
        np.testing.assert_allclose(together[:, row], outputs[:, 0], atol=1e-5, rtol=0)
        np.testing.assert_allclose(after[row], state[0], atol=1e-5, rtol=1e-5)


@every_engine
def test_the_state_belongs_to_the_caller(loaded, name):
    """It is only read, may lie at any stride, and is in new memory afterwards."""
    model, engine = loaded(name, "pro")
    frames = video_of(model, 1)
    _, state = step_through(engine, model, frames)
    before, kept = state.copy(), state.copy()
    first, after = engine.step(frames, state)
    held = after.copy()
    wide = np.zeros((2, state.shape[1], 2), np.float32)
    wide[0, :, 1] = kept
    again, _ = engine.step(frames, wide[:1, :, 1])
    np.testing.assert_array_equal(state, before)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(after, held, err_msg="a later step wrote into the state that the caller has")
    assert not np.shares_memory(after, state)


@every_engine
def test_a_whole_video_gives_what_its_last_step_gives(loaded, name):
    model, engine = loaded(name, "spatiotemporal")
    video = video_of(model, batch=2)
    outputs, _ = step_through(engine, model, video)
    np.testing.assert_allclose(engine.run(video), outputs[-1], atol=1e-5, rtol=0)
    folded = np.ascontiguousarray(video.transpose(0, 2, 1, 3, 4)).transpose(0, 2, 1, 3, 4)  # as the ring fills it
    np.testing.assert_allclose(engine.run(folded), outputs[-1], atol=1e-5, rtol=0)


@every_engine
def test_a_long_stream_does_not_drift_from_the_source_model(loaded, name):
    model, engine = loaded(name, "pro")
    video = video_of(model, 300)
    outputs, state = step_through(engine, model, video)
    expected, last = stepped(model, video, features=True)
    np.testing.assert_allclose(outputs[-1, 0], expected[-1], atol=1e-4, rtol=0)
    np.testing.assert_allclose(state, last, atol=1e-4, rtol=1e-4)


def test_a_model_without_classes_gives_its_features(tmp_path):
    model = make_model(causal=True, readout="mean", num_classes=0)
    engine = engines.create(write_bundle("torch", model, tmp_path / "features"))
    outputs, _ = step_through(engine, model, video_of(model))
    with torch.no_grad():
        _, features, _ = model.forward_steps(torch.from_numpy(video_of(model)))
    engine.close()
    np.testing.assert_allclose(outputs[:, 0], features[0], atol=1e-5, rtol=0)
