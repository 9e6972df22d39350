"""Files that are no checkpoint are named for what they are, in one line; folders and parts are put together."""

import argparse
import io
import json
import os
import pickle
import tarfile
import zipfile

import pytest
import torch
from published_files import assert_is, make, prefixed

from vmp_edge.errors import CheckpointError
from vmp_edge.models import load_checkpoint


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return make("videomamba").state_dict()


def refusal(path):
    """Return what loading says, which is one line."""
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def zipped(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in entries.items():
            archive.writestr(f"archive/{name.replace('__', '.')}", value)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    return file.getvalue()


FILES = {
    "empty": (b"", "is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "git lfs pull"),
    "page": (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
    "page with a mark": (b"\xef\xbb\xbf<html>", "is a web page"),
    "page after a comment": (b"<!-- saved from -->\n<html>", "is a web page"),
    "page in UTF-16": ("<html><body>".encode("utf-16"), "is a web page"),
    "error in XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "is a web page"),
    "error in JSON": (b'{"error":"Repository not found"}', "is a text and not a checkpoint: it begins with '{\"error"),
    "text": (b"Entry not found\n\x1b[2J", "is not a PyTorch checkpoint, or is damaged"),
    "plain text": ("Datei nicht gefunden: \xe4\n".encode(), "begins with 'Datei nicht gefunden: \xe4'"),
    "cut text": ("\xe4".encode() * 600, "is a text and not a checkpoint"),
    "git-annex": (b"/annex/objects/SHA256E-s123--abc.pth\n", "is a text and not a checkpoint"),
    "zeros": (bytes(20_000), "begins with zeros alone"),
    "onnx": (b"\x08\x0a\x12\x07pytorch" + bytes(50), "is an ONNX model"),
    "executorch": (b"\x2c\x00\x00\x00ET12" + bytes(50), "is a program of ExecuTorch"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(50), "is a model of TensorFlow Lite"),
    "video": (b"\x00\x00\x00\x20ftypisom" + bytes(50), "is a video"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a picture"),
    "numpy": (b"\x93NUMPY" + bytes(50), "is an array of NumPy"),
    "numpy archive": (zipped(a__npy=b""), "holds arrays of NumPy"),
    "pickle": (pickle.dumps({"model": 1}), "is a pickle that torch.save did not write"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "unpack it first"),
    "zipped": (zipped(best__pth=b"PK"), "is a zip archive with archive/best.pth; unpack it"),
    "exported program": (zipped(archive_format=b"pt2"), "is a program of torch.export"),
    "zstandard": (b"\x28\xb5\x2f\xfd" + bytes(50), "is packed by Zstandard; unpack it first"),
    "other zip": (zipped(readme__txt="hello"), "another kind of zip"),
    "torchscript": (zipped(constants__pkl=b"", data__pkl=b""), "is a TorchScript program"),
    "empty pickle": (zipped(data__pkl=b""), "is damaged"),
    "tar": (tarred(), "is a tar archive"),
    "safetensors, cut": (b"\x20\x00\x00\x00\x00\x00\x00\x00{", "is not a safetensors file"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_named(tmp_path, name):
    content, words = FILES[name]
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    assert words in refusal(path)


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "link.pth").symlink_to("nowhere.pth")
    assert "is a link to nowhere.pth, and there is no such file" in refusal(tmp_path / "link.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    assert "is a link to loop.pth" in refusal(tmp_path / "loop.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path / "pipe.pth", "/dev/zero"):  # and nothing waits for their end
        assert "is a device or a pipe and no file" in refusal(path)
    for path in (tmp_path / "none.pth", tmp_path / "no" / "folder.pth", tmp_path / "loop.pth" / "x.pth"):
        assert "there is no such file" in refusal(path)
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    "content",
    [
        {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}, "epoch": 3},
        {"state": {}, "param_groups": [{"lr": 1e-3}]},
        {"optimizer_state_dict": {"zero_stage": 2, "single_partition_of_fp32_groups": [torch.zeros(3)]}},
    ],
)
def test_the_state_of_an_optimiser_is_no_model(save, content):
    assert "holds the state of an optimiser and no model" in refusal(save(content))


def test_tensors_that_zero_divided_are_named(save, state):
    path = save({"module": {name: torch.zeros(0) for name in state}})
    assert "has no values, as DeepSpeed's ZeRO leaves weights that it divides" in refusal(path)


def test_bytes_that_changed_in_the_middle_are_found(save, state):
    path = save({"model": state})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "is damaged: the bytes of some/data/" in refusal(path)
    torch.serialization.set_crc32_options(False)
    try:
        assert_is(load_checkpoint(save({"model": state})), state)
    finally:
        torch.serialization.set_crc32_options(True)


def test_folder_names_the_checkpoints_in_it(tmp_path):
    (tmp_path / "epoch_3.pt").touch()
    (tmp_path / "readme.md").touch()
    assert refusal(tmp_path).endswith("is a folder; give the checkpoint's file; it has epoch_3.pt")
    for epoch in range(4, 9):
        (tmp_path / f"epoch_{epoch}.pt").touch()
    assert "epoch_6.pt and 2 more" in refusal(tmp_path)
    (tmp_path / "manifest.yaml").touch()
    assert "is the folder of a bundle" in refusal(tmp_path)


def test_a_folder_of_deepspeed_is_a_checkpoint(tmp_path, state):
    half = {name: value.to(torch.bfloat16) for name, value in state.items()}
    weights = tmp_path / "run" / "checkpoint-7" / "mp_rank_00_model_states.pt"
    weights.parent.mkdir(parents=True)
    torch.save({"module": half, "ds_version": "0.9.1", "optimizer": None, "epoch": 7}, weights)
    assert_is(load_checkpoint(weights.parent), half)
    with pytest.raises(CheckpointError, match="is a folder; give the checkpoint's file"):
        load_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "latest").write_text("checkpoint-7\n")
    assert_is(load_checkpoint(tmp_path / "run"), half)
    for name in ("../../etc", "..", "", "checkpoint-8"):
        (tmp_path / "run" / "latest").write_text(name)
        with pytest.raises(CheckpointError, match=r"latest: names .*, and there is no such folder beside it"):
            load_checkpoint(tmp_path / "run")
    torch.save({"module": half}, weights.with_name("mp_rank_01_model_states.pt"))
    with pytest.raises(CheckpointError, match="divided the weights among 2 files"):
        load_checkpoint(weights.parent)


def test_the_newest_step_of_deepspeed_is_taken(tmp_path, state, capsys):
    for step in (9, 10, 2):
        folder = tmp_path / f"global_step{step}"
        folder.mkdir()
        changed = {**state, "head.bias": torch.full((5,), float(step))}
        torch.save({"module": prefixed("module.", changed)}, folder / "mp_rank_00_model_states.pt")
    assert load_checkpoint(tmp_path).head.bias[0] == 10
    assert "global_step10/mp_rank_00_model_states.pt" in capsys.readouterr().err
    (tmp_path / "latest").write_text("global_step9")
    assert load_checkpoint(tmp_path).head.bias[0] == 9
    (tmp_path / "latest").write_text("global_step11")
    assert "give one of global_step2, global_step9, global_step10" in refusal(tmp_path)


def test_what_zero_divided_is_put_together_by_its_own_program(tmp_path, state):
    folder = tmp_path / "global_step1"
    folder.mkdir()
    (tmp_path / "latest").write_text("global_step1")
    for rank in range(2):
        name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"
        torch.save({"module": {key: torch.zeros(0) for key in state}}, folder / name)
        torch.save({"optimizer_state_dict": {}}, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    for path in (tmp_path, folder):
        assert "divided the weights among 2 files; put the weights together" in refusal(path)
    for path in sorted(folder.iterdir()):
        assert "is a part of what DeepSpeed's ZeRO divided" in refusal(path)
    torch.save({"module": state}, folder / "mp_rank_00_model_states.pt")
    for rank in range(2):  # as in stages 1 and 2, where the weights are whole
        (folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").unlink()
    assert_is(load_checkpoint(tmp_path), state)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_model_in_several_parts(tmp_path, state, kind):
    names = list(state)
    parts = {f"model-0000{part}-of-00002.{kind}": names[part - 1 :: 2] for part in (1, 2)}
    for name, keys in parts.items():
        part = {key: state[key] for key in keys}
        if kind == "bin":
            torch.save(part, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(as_safetensors(part))
    index = tmp_path / f"model.{kind}.index.json"
    weights = {key: name for name, keys in parts.items() for key in keys}
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weights}))
    for path in (tmp_path, index):
        assert_is(load_checkpoint(path), state)
    assert "is part 1 of 2 of a model; give the folder" in refusal(tmp_path / next(iter(parts)))
    for content, words in (
        ("{}", "is no index"),
        ("[]", "is no index"),
        ("{", "is no index"),
        ('{"weight_map": {}}', "names files that do not lie beside it"),
        ('{"weight_map": {"a": "../x.bin"}}', "names files that do not lie beside it"),
        ('{"weight_map": {"a": "x.bin"}}', "names x.bin, which is missing (1 of 1 parts are)"),
    ):
        index.write_text(content)
        assert words in refusal(tmp_path)
    (tmp_path / "other.index.json").touch()
    assert "has several models in parts" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old format"])
def test_truncated_files_are_refused(save, state, share, new):
    path = save({"model": state, "args": argparse.Namespace()}, _use_new_zipfile_serialization=new)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="is not a PyTorch checkpoint, or is damaged"):
        load_checkpoint(path)


TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def as_safetensors(tensors, **metadata):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, value in tensors.items():
        raw = value.contiguous().view(torch.uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": TYPES[value.dtype], "shape": list(value.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("dtype", TYPES)
def test_safetensors(tmp_path, state, dtype):
    path = tmp_path / "model.safetensors"
    tensors = {name: value.to(dtype) for name, value in state.items()}
    path.write_bytes(as_safetensors(prefixed("model.", tensors), format="pt", step="3"))
    assert_is(load_checkpoint(path), tensors)
    path.write_bytes(path.read_bytes()[:-8])
    assert "is not a safetensors file, or is damaged" in refusal(path)
    header = {"patch_embed.proj.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    assert "is not a safetensors file, or is damaged" in refusal(path)  # and no memory is taken for it
