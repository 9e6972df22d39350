"""Checkpoints load as training programs save them; nothing in them is run, and faults are named at once."""

import argparse
import collections
import datetime
import enum
import io
import pathlib
import pickle
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from published_files import assert_is

from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import ModelOptions, VideoMamba, load_checkpoint, plain_pickle

SIZES = {"embed_dim": 16, "depth": 2, "num_frames": 2, "image_size": 32, "num_classes": 5}
WEIGHT = "layers.1.mixer.out_proj.weight"


def model(seed=0, **options):
    torch.manual_seed(seed)
    return VideoMamba(ModelOptions(**{**SIZES, **options})).eval()


def prefixed(prefix, state):
    return OrderedDict((prefix + key, value) for key, value in state.items())


@pytest.fixture
def state():
    return model().state_dict()


class Colour(enum.Enum):
    RED = 1


class Config(dict):
    """A dict of a class that no other program knows, like those of mmengine, yacs and Lightning."""


class History:
    def __init__(self):
        self.values = np.arange(3.0)

    def __setstate__(self, state):
        raise AssertionError("this code must not run")


BESIDE = {
    "namespace": argparse.Namespace(lr=1e-3, betas=(0.9, 0.95), output=pathlib.Path("out")),
    "numpy.float64": np.float64(77.1),
    "numpy.int64": {np.int64(3): np.float32(1.5)},
    "numpy array": np.arange(6).reshape(2, 3),
    "numpy dtype": np.dtype("float32"),
    "numpy random state": np.random.RandomState(0).get_state(),
    "numpy generator": np.random.default_rng(0),
    "torch random state": torch.get_rng_state(),
    "dates": [datetime.datetime(2024, 1, 1), datetime.timedelta(1)],
    "default dict": collections.defaultdict(list, a=[1]),
    "dict of another class": Config(lr=0.1, inner=Config(b=2)),
    "object of another class": History(),
    "simple namespace": types.SimpleNamespace(a=1),
    "class": Config,
    "sets": {frozenset((1, 2)), "a"},
    "dtype and device": (torch.float32, torch.device("cpu"), torch.Size([1, 2])),
    "deque": collections.deque([1, 2], 5),
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
def test_plain_data_beside_the_weights(save, state, name, new):
    path = save({"model": state, "epoch": 3, "args": BESIDE[name]}, _use_new_zipfile_serialization=new)
    assert_is(load_checkpoint(path), state)


def test_numpy_numbers_of_numpy_1_and_2(tmp_path, state):
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        torch.save({"model": state, "best": np.float64(1)}, tmp_path / "some.pth")
        with zipfile.ZipFile(tmp_path / "some.pth") as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        changed = {
            name: value.replace(b"numpy._core.multiarray", module.encode()).replace(
                b"numpy.core.multiarray", module.encode()
            )
            if name.endswith("data.pkl")
            else value
            for name, value in entries.items()
        }
        with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
            for name, value in changed.items():
                archive.writestr(name, value)
        assert_is(load_checkpoint(tmp_path / "other.pth"), state)


WRAPS = {
    "bare": lambda s: s,
    "lightning": lambda s: {"state_dict": prefixed("model.", s), "hyper_parameters": Config(lr=1)},
    "lightning, net": lambda s: {"state_dict": prefixed("net.", s)},
    "mmaction": lambda s: {"state_dict": prefixed("backbone.", s), "meta": {"env": Config()}},
    "torch.compile": lambda s: {"model": prefixed("_orig_mod.", s)},
    "torch.compile of DDP": lambda s: {"model": prefixed("_orig_mod.module.", s)},
    "DDP of torch.compile": lambda s: prefixed("module._orig_mod.", s),
    "lightning, compiled": lambda s: {"state_dict": prefixed("model._orig_mod.", s)},
    "unknown prefix": lambda s: {"state_dict": prefixed("my_recogniser.", s)},
    "unknown key": lambda s: {"my_weights": s, "epoch": 1},
    "nested": lambda s: {"checkpoint": {"model": s}},
    "deepspeed": lambda s: {"module": s, "optimizer": None, "param_shapes": [{k: v.shape for k, v in s.items()}]},
    "averaged alone": lambda s: {"model_ema": s},
    "averaged model": lambda s: {"model": {"n_averaged": torch.tensor(5), **prefixed("module.", s)}},
    "counters beside": lambda s: {"model": {**s, "head_drop.num_updates": torch.tensor(3)}, "epoch": 1},
    "text beside": lambda s: {**s, "architecture": "tiny"},
    "parameters": lambda s: {"model": {k: torch.nn.Parameter(v) for k, v in s.items()}, "args": BESIDE["namespace"]},
    "distilled": lambda s: {"model": {**s, "distill_head.0.weight": torch.ones(3)}},
    "head apart": lambda s: {
        "state_dict": {
            **prefixed("backbone.", {k: v for k, v in s.items() if not k.startswith("head.")}),
            "cls_head.fc_cls.weight": s["head.weight"],
            "cls_head.fc_cls.bias": s["head.bias"],
        }
    },
}


@pytest.mark.parametrize("name", WRAPS)
def test_wrappers_and_prefixes(save, state, name):
    assert_is(load_checkpoint(save(WRAPS[name](state))), state)


TWO = {
    ("model", "model_ema"): lambda a, b: {"model_ema": b, "model": a},
    ("state_dict", "state_dict_ema"): lambda a, b: {"state_dict_ema": prefixed("module.", b), "state_dict": a},
    ("model", "ema_model"): lambda a, b: {"state_dict": {**prefixed("ema_model.", b), **prefixed("model.", a)}},
    ("student", "teacher"): lambda a, b: {"teacher": b, "student": a},
    ("", "teacher"): lambda a, b: {**prefixed("teacher.", b), **a},
}


@pytest.mark.parametrize("names", TWO)
def test_of_two_models_the_trained_one_is_taken_unless_the_user_says_otherwise(save, state, names, capsys):
    averaged = model(1).state_dict()
    path = save(TWO[names](state, averaged))
    assert_is(load_checkpoint(path), state)
    assert "several models" in (said := capsys.readouterr().err) and names[1] in said
    assert_is(load_checkpoint(path, key=names[1]), averaged)
    assert "several" not in capsys.readouterr().err
    with pytest.raises(UsageError, match=f"no model under 'other'.*{names[1]}"):
        load_checkpoint(path, key="other")


@pytest.mark.parametrize("name", ["ema", "ema_state", "module_ema", "EMA", "swa_model", "avg_model", "shadow_params"])
def test_averaged_weights_are_known_by_a_word_in_their_name(save, state, name, capsys):
    averaged = model(1).state_dict()
    path = save({name: averaged, "my_model": state})
    assert_is(load_checkpoint(path), state)
    assert f"took 'my_model' and not {name}" in capsys.readouterr().err
    assert_is(load_checkpoint(path, key=name), averaged)
    load_checkpoint(save({name: state}))
    assert f"took '{name}', averaged weights" in capsys.readouterr().err


def test_averaged_weights_of_a_callback(save, state):
    averaged = model(1).state_dict()
    path = save({"callbacks": {"EMA": {"ema_weights": averaged}}, "state_dict": prefixed("model.", state)})
    assert_is(load_checkpoint(path), state)
    assert_is(load_checkpoint(path, key="EMA"), averaged)


@pytest.mark.parametrize("prefix", ["", "encoder.", "vision_encoder."])
def test_pretrained_backbone_has_no_head(save, state, prefix, capsys):
    video = torch.randn(1, 3, 2, 32, 32)
    expected = model().forward_features(video)
    backbone = {
        ("norm.weight" if k == "norm_f.weight" else k): v for k, v in state.items() if not k.startswith("head.")
    }
    decoder = {"clip_decoder.0.norm.weight": torch.ones(4)}
    text = {"text_encoder.bert.embeddings.position_ids": torch.arange(4)} if prefix == "vision_encoder." else {}
    loaded = load_checkpoint(save({"model": {**prefixed(prefix, {**backbone, **decoder}), **text}}))
    assert loaded.options.num_classes == 0
    torch.testing.assert_close(loaded.forward_features(video), expected)
    torch.testing.assert_close(loaded(video), expected)
    assert f"left out {prefix}clip_decoder" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_tensor_that_is_not_finite_is_named(save, state, dtype, value):
    changed = {key: tensor.to(dtype) for key, tensor in state.items()}
    changed[WEIGHT][3, 1] = value
    with pytest.raises(CheckpointError, match=f"{WEIGHT} holds values that are not finite \\(1 of 512\\)"):
        load_checkpoint(save({"model": prefixed("module.", changed)}))


def test_values_too_large_for_float32_count(save, state):
    state["head.bias"] = state["head.bias"].double()
    state["head.bias"][1] = 1e300
    with pytest.raises(CheckpointError, match=r"head\.bias holds values that are not finite as float32"):
        load_checkpoint(save({"model": state}))


def test_float64_becomes_float32(save, state):
    loaded = load_checkpoint(save({"model": {key: value.double() for key, value in state.items()}}))
    assert_is(loaded, state)
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())


def test_what_is_left_out_may_hold_anything(save, state):
    beside = {"model": {**state, "clip_decoder.a": torch.tensor([float("nan")])}, "model_ema": {"a": torch.tensor(1)}}
    assert_is(load_checkpoint(save(beside)), state)


WRONG = {
    "integers": (lambda s: {**s, WEIGHT: s[WEIGHT].to(torch.int8)}, f"{WEIGHT} holds int8 numbers"),
    "complex": (lambda s: {**s, "pos_embed": s["pos_embed"] + 1j}, "pos_embed holds complex64 numbers"),
    "no tensor": (lambda s: {**s, "head.bias": np.zeros(5)}, "head.bias is an array of NumPy"),
    "sparse": (lambda s: {**s, "head.weight": s["head.weight"].to_sparse()}, "head.weight is a sparse or empty"),
    "another model": (lambda s: {"model": {"conv1.weight": torch.zeros(3), "bn.bias": torch.zeros(1)}}, "conv1.weight"),
    "dimensions": (lambda s: {**s, "pos_embed": torch.zeros(5)}, r"pos_embed \(5,\) does not have 3 dimensions"),
    "scalar": (lambda s: {**s, "layers.0.mixer.A_log": torch.tensor(1.0)}, "A_log"),
    "missing layer": (
        lambda s: {k.replace("layers.1.", "layers.7."): v for k, v in s.items()},
        "layers.1 is not among",
    ),
    "many layers": (lambda s: {**s, "layers.999999.norm.weight": torch.ones(16)}, "layers.2 is not among"),
    "huge layer": (lambda s: {**s, f"layers.{9**20}.norm.weight": torch.ones(16)}, "layers.2 is not among"),
    "whole model": (lambda s: {"model": History()}, "holds a whole object of the class .*History"),
    "nothing": (lambda s: {}, "holds no state dict"),
    "keys": (lambda s: {"epoch": 3, "lr": 1}, "its keys are epoch, lr"),
    "list": (lambda s: [s], "holds no state dict"),
    "options": (lambda s: {"model": s, "options": {"depth": 10**9}}, "layers.2 is not among"),
    "odd options": (lambda s: {"model": s, "options": {3: 1, "depth": "two"}}, "do not make a model"),
    "line in a name": (lambda s: {**s, "a\nb\x1b[2J": torch.ones(2)}, r"unknown a\\nb\\x1b\[2J"),
    "no width": (lambda s: {**s, "patch_embed.proj.weight": torch.zeros(0, 3, 1, 16, 16)}, "has no values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(save, state, name):
    change, words = WRONG[name]
    with pytest.raises(CheckpointError, match=words) as error:
        load_checkpoint(save(change(state)))
    assert "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------- nothing in a file is run

ran = []


def touch(*args):
    ran.append(args)
    return {}


class Calls:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


CALLS = {
    "function": lambda: Calls(touch, ("x",)),
    "class": lambda: Calls(Touching, ("x",)),
    "inside a namespace": lambda: argparse.Namespace(a=[{"b": Calls(touch, ())}]),
    "builtin": lambda: Calls(eval, ("__import__('tests')",)),
    "attribute": lambda: Calls(getattr, (1, "real")),
    "enum": lambda: Colour.RED,
    "in the way of a tensor": lambda: Calls(torch._tensor._rebuild_from_type_v2, (touch, torch.Tensor, (), {})),
    "in a state": lambda: Holding(Calls(touch, ())),
}


class Holding:
    def __init__(self, content):
        self.content = content


class Touching:
    def __init__(self, *args):
        ran.append(args)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
def test_code_is_refused_and_not_run(save, state, name, new):
    path = save({"model": state, "args": CALLS[name]()}, _use_new_zipfile_serialization=new)
    ran.clear()
    with pytest.raises(CheckpointError, match="needs pickled code to load") as error:
        load_checkpoint(path)
    assert not ran
    assert "\n" not in str(error.value)


HERE = __name__.encode()


@pytest.mark.parametrize(
    "program",
    [
        b"c" + HERE + b"\ntouch\n)R.",
        b"(i" + HERE + b"\ntouch\n.",
        b"(c" + HERE + b"\ntouch\no.",
        b"\x80\x04\x8c" + bytes([len(HERE)]) + HERE + b"\x8c\x05touch\x93)R.",
        b"\x80\x02}}b.",  # a state for a dict
        b"c" + HERE + b"\ntouch\n}b.",  # a state for a function
        b"\x80\x02\x82\x01.",  # a name by its number
        b"\x80\x02ctorch._utils\n_rebuild_parameter\nc" + HERE + b"\ntouch\n\x85R)R.",
        b"\x80\x02ccollections\nOrderedDict\n)\x81c" + HERE + b"\ntouch\n)Rb.",
    ],
)
def test_no_operation_of_a_pickle_calls_anything(program):
    ran.clear()
    with pytest.raises(pickle.UnpicklingError):
        plain_pickle.load(io.BytesIO(program))
    assert not ran


def test_nothing_is_imported():
    named = plain_pickle.load(io.BytesIO(b"cno_such_module\nno_such_name\n."))
    assert named.path == "no_such_module.no_such_name"
