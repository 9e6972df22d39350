"""The manifest: wrong entries are refused with a message that names them, and its text is stable."""

import hashlib

import pytest
import yaml
from bundles import make_manifest

from vmp_edge.bundle.formats import FORMAT_VERSION
from vmp_edge.bundle.manifest import FileEntry, Manifest
from vmp_edge.bundle.reading import Bundle
from vmp_edge.machine import host_machine


def edit_manifest(path, change):
    """Change the manifest of the bundle at `path` by the function `change`."""
    manifest = yaml.safe_load((path / "manifest.yaml").read_text())
    change(manifest)
    (path / "manifest.yaml").write_text(yaml.safe_dump(manifest))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", FORMAT_VERSION + 1, "update vmp-edge"),
        ("format", 0, "build the bundle again"),
        ("format", "1", "whole number"),
        ("format", True, "whole number"),
        ("machine", "pdp11", f"is for pdp11, this machine is {host_machine()}"),
        ("labels", [], "neither labels nor features"),
        ("labels", ["a", "b", True], "put it in quotes"),
        ("labels", ["a", "b"], "num_classes is 3, elsewhere 2"),
        ("name", "", "empty"),
        ("engine", 5, "'engine'"),
        ("model", ["a"], "'model'"),
        ("model", {"num_frames": 9}, "num_frames is 9, elsewhere 4"),
        ("input", {"frames": 0, "image_size": 16}, "at least 1"),
        ("input", {"frames": 4}, "lacks 'input.image_size'"),
        ("input", {"frames": 4, "image_size": 16, "frame_rate": float("nan")}, "positive"),
        ("preprocessing", {"resize": "stretch"}, "preprocessing"),
        ("program", "other.json", "not among its files"),
        ("threads", 0, "at least 1"),
        ("threads", 1_000_000, "at most 1024"),
        ("features", 1 << 20, "at most 65536"),
        ("labels", ["a", "b", "a"], "label 2 is 'a', and so is label 0"),
        ("labels", ["a", "b", "  "], "label 2 is '  ': it is empty"),
        ("labels", ["a", "b", "c "], "label 2 is 'c ': it begins or ends with a blank"),
        ("labels", ["a", "b", "x" * 257], "more than 256 characters"),
        (
            "labels",
            ["a", "still 99%\n pan 100%", "c"],
            r"label 1 is 'still 99%\n pan 100%': it holds the character U+000A",
        ),
        (
            "labels",
            ["\x1b]0;T\x07\x1b[2J", "b", "c"],
            r"label 0 is '\x1b]0;T\x07\x1b[2J': it holds the character U+001B",
        ),
        ("labels", ["a", "\u202elieve", "c"], r"label 1 is '\u202elieve': it holds the character U+202E"),
        ("labels", ["a", "pan\0left", "c"], "it holds the character U+0000"),
        ("labels", [f"a{index}" for index in range(40_000)], "there are 40000 labels; there can be at most 32768"),
        ("name", "\x1b[31mx", r"has '\x1b[31mx' for 'name': it holds the character U+001B"),
        ("machine", " any", "begins or ends with a blank"),
        ("tools", {"numpy": "1\u202e"}, "has '1\\u202e' for 'tools.numpy'"),
        ("tools", {"\u200f": "1"}, "which is not a plain text"),
        ("extra", {"deep": ["a", {"b": "\x07"}]}, r"has '\x07' for 'extra.deep[1].b'"),
        ("model", {"num_frames": 4.0}, "needs a whole number for 'model.num_frames'"),
        ("model", {"tubelet_size": 0}, "at least 1"),
        ("model", {"tubelet_size": 3}, "does not divide"),
        ("model", {"tubelet_size": 16}, "does not divide"),
        ("model", {"patch_size": 8}, "lacks 'model.tubelet_size'"),
        ("variants", {"half": {"top1": "high"}}, "needs a positive number for 'variants.half.top1'"),
        ("gpu", {"architectures": [87], "cuda": "new", "device": "Orin"}, "a version such as 12.6 for 'gpu.cuda'"),
        ("gpu", {"architectures": [], "cuda": "13.0", "device": "Orin"}, "whole numbers for 'gpu.architectures'"),
        ("variants", {"half": {"top1": 1.5}}, "from 0 to 1"),
        ("input", {"frames": 1 << 20, "image_size": 16}, "at most 1024"),
        ("input", {"frames": 4, "image_size": 20_000}, "at most 4096"),
        ("input", {"frames": 4, "image_size": 16, "frame_rate": 1e-9}, "from 0.001 to 1000"),
        ("input", {"frames": 4, "image_size": 16, "frame_rate": 0}, "positive"),
        ("sampling", {"frames": 4, "span": 10.0}, "has 'sampling', which is for format 3, not 1"),
        ("states", {"h-0": [1, 4, 2]}, "has 'states', which is for format 4, not 1"),
        ("model", {"causal": True}, "is of a causal model and lacks 'states'"),
        ("files", {"model.json": {"size": 5}}, "lacks 'files.model.json.sha256'"),
        ("files", {"model.json": {"size": -1, "sha256": "0" * 64}}, "at least 0"),
        ("files", {"model.json": {"size": 5, "sha256": "xyz"}}, "SHA-256"),
        ("files", {"model.json": "here"}, "mapping"),
    ],
)
def test_a_wrong_manifest_is_refused(bundle, error_of, key, value, message):
    edit_manifest(bundle, lambda manifest: manifest.update({key: value}))
    assert message in error_of(bundle)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"frames": 4}, "needs one of 'sampling.span' and 'sampling.rate'"),
        ({"frames": 4, "span": 10.0, "rate": 1.0}, "needs one of 'sampling.span' and 'sampling.rate'"),
        ({"span": 10.0}, "lacks 'sampling.frames'"),
        ({"frames": 5, "span": 10.0}, "num_frames is 4, elsewhere 5"),
        ({"frames": 4, "span": 0}, "from 0.001 to 86400 for 'sampling.span'"),
        ({"frames": 4, "span": "10"}, "needs a positive number for 'sampling.span'"),
        ({"frames": 4, "rate": 1001}, "from 0.001 to 1000 for 'sampling.rate'"),
        ([], "mapping"),
    ],
)
def test_a_wrong_sampling_is_refused(bundle, error_of, sampling, message):
    change = {"format": 3, "sampling": sampling, "input": {"image_size": 16}}
    edit_manifest(bundle, lambda manifest: manifest.update(change))
    assert message in error_of(bundle)


@pytest.mark.parametrize("key", ["frames", "frame_rate"])
def test_each_fact_has_one_place(bundle, error_of, key):
    change = {"format": 3, "sampling": {"frames": 4, "span": 10.0}, "input": {"image_size": 16, key: 4}}
    edit_manifest(bundle, lambda manifest: manifest.update(change))
    assert f"has 'input.{key}', which is in 'sampling' in format 3" in error_of(bundle)


@pytest.mark.parametrize(
    ("facts", "sampling", "rate"),
    [
        ({"span": 10.0}, {"frames": 4, "span": 10.0}, 0.4),
        ({"frame_rate": 12.5}, {"frames": 4, "rate": 12.5}, 12.5),
    ],
)
def test_the_manifest_says_how_frames_are_sampled(facts, sampling, rate):
    manifest = make_manifest(**facts)
    entries = manifest.to_dict()
    assert (entries["format"], entries["sampling"], entries["input"]) == (3, sampling, {"image_size": 16})
    files = {"model.json": {"size": 5, "sha256": "0" * 64}}
    again = Manifest.from_yaml(yaml.safe_dump({**entries, "files": files}))
    assert (again.frames, again.span, again.frame_rate, again.window_rate) == (
        4,
        facts.get("span"),
        facts.get("frame_rate"),
        rate,
    )


def test_older_bundles_keep_their_frame_rate(bundle):
    assert Bundle.open(bundle).manifest.window_rate is None
    edit_manifest(bundle, lambda manifest: manifest["input"].update(frame_rate=15))
    manifest = Bundle.open(bundle).manifest
    assert (manifest.frames, manifest.frame_rate, manifest.span, manifest.window_rate) == (4, 15, None, 15)


def test_a_bundle_with_an_embedding_says_its_sampling_too():
    entries = make_manifest(span=10.0, embedding="embedding.bin").to_dict()
    assert entries["format"] == 3 and entries["embedding"] == "embedding.bin"


STATES = {"inputs-0": (1, 3, 8), "h-0": (1, 8, 2), "started": (1, 1, 1)}
CAUSAL = {"model": {"causal": True, "num_frames": 4}, "states": STATES}


@pytest.mark.parametrize("facts", [{}, {"span": 10.0}, {"frame_rate": 12.5}])
def test_the_manifest_of_a_causal_model_lists_its_states(facts):
    manifest = make_manifest(**CAUSAL, **facts, files={"model.json": FileEntry(5, "0" * 64)})
    again = Manifest.from_yaml(manifest.to_yaml())
    assert again == manifest and list(again.states.items()) == list(STATES.items())
    assert again.state_size == 24 + 16 + 1
    entries = manifest.to_dict()
    assert entries["format"] == 4, "a reader that knows no states must refuse it"
    assert ("sampling" in entries) == bool(facts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": {}}, "needs at least one state in 'states'"),
        ({"states": [1]}, "needs a mapping for 'states'"),
        ({"states": {"h-0": 4}}, "needs 1 to 4 whole numbers of at least 1 for 'states.h-0'"),
        ({"states": {"h-0": []}}, "needs 1 to 4 whole numbers"),
        ({"states": {"h-0": [1, 0]}}, "at least 1 for 'states.h-0'"),
        ({"states": {"h-0": [1, True]}}, "needs 1 to 4 whole numbers"),
        ({"states": {"h-0": [1, 1, 1, 1, 1]}}, "needs 1 to 4 whole numbers"),
        ({"states": {"h-0": [1 << 28], "h-1": [1]}}, "has states of 268435457 numbers, which are more than 268435456"),
        ({"model": {"causal": False}}, "has 'states', but its model is not causal"),
        ({"model": {"causal": 1}}, "its model is not causal"),
        ({"embedding": "model.json"}, "has 'states' and an 'embedding', which do not go together"),
        ({"sampling": {"frames": 4}}, "has 'input.frames', which is in 'sampling' in format 4"),
        ({"sampling": {"frames": 4}, "input": {"image_size": 16}}, "needs one of 'sampling.span' and 'sampling.rate'"),
        ({"input": {"image_size": 16}}, "lacks 'input.frames'"),
    ],
)
def test_wrong_states_are_refused(bundle, error_of, change, message):
    states = {name: list(shape) for name, shape in STATES.items()}
    edit_manifest(bundle, lambda manifest: manifest.update({"format": 4, "model": {"causal": True}, "states": states}))
    Bundle.open(bundle)
    edit_manifest(bundle, lambda manifest: manifest.update(change))
    assert message in error_of(bundle)


def test_a_causal_bundle_without_its_states_is_refused(bundle, error_of):
    edit_manifest(bundle, lambda manifest: manifest.update({"format": 4, "model": {"causal": True}}))
    assert "lacks 'states'" in error_of(bundle)


@pytest.mark.parametrize("key", [key for key in make_manifest().to_dict()])
def test_every_key_is_required(bundle, error_of, key):
    edit_manifest(bundle, lambda manifest: manifest.pop(key))
    assert f"lacks '{key}'" in error_of(bundle)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "C:x", "a\nb", "manifest.yaml", 5, None],
)
def test_files_outside_the_folder_are_refused(bundle, error_of, name):
    (bundle.parent / "secret").write_text("x")

    def add(manifest):
        manifest["files"][name] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}

    edit_manifest(bundle, add)
    assert "only plain names" in error_of(bundle)


def test_frames_that_take_gigabytes_are_refused(bundle, error_of):
    sizes = {"frames": 1024, "image_size": 4096}
    edit_manifest(bundle, lambda manifest: manifest.update({"input": sizes, "model": {}}))
    assert "more than 33554432 pixels" in error_of(bundle)


@pytest.mark.parametrize(
    "numbers", [[1, 1, 0], [1, 1, -1], [1, 1, 1e-9], [1, 1, 1001], [1, 1], [1, 1, "1"], [1, 1, True]]
)
def test_numbers_that_normalise_nothing_are_refused(bundle, error_of, numbers):
    edit_manifest(bundle, lambda manifest: manifest["preprocessing"].update(std=numbers))
    assert "std must be" in error_of(bundle)


@pytest.mark.parametrize("names", [("Model.JSON",), ("MANIFEST.yaml",), ("é.bin",), ("a ",), ("a.",), ("x" * 121,)])
def test_names_that_are_one_on_some_devices_are_refused(bundle, error_of, names):
    edit_manifest(
        bundle, lambda manifest: manifest["files"].update({n: {"size": 1, "sha256": "0" * 64} for n in names})
    )
    assert "lists the file" in error_of(bundle)


def test_a_model_without_a_tubelet_size_takes_frame_by_frame(bundle):
    assert Bundle.open(bundle).manifest.tubelet == 1


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 1 << 63, {1: 2}, ["\ud800"], {"a\nb": 1}, {"x" * 200: 1}]
)
def test_only_what_can_be_read_is_written(value):
    with pytest.raises(yaml.YAMLError):
        make_manifest(accuracy={"value": value}).to_yaml()


@pytest.mark.parametrize(
    "text", ["1e5", "01", "? x", ":x", "<<", "0x10", "1:30", "yes", "null", "#", "a: b", "a" * 300 + " b"]
)
def test_each_text_is_read_as_it_was_written(text):
    lists = [text]
    entries = {"value": text, "twice": [lists, lists]}  # the same list twice makes no alias
    manifest = make_manifest(accuracy=entries, files={"model.json": FileEntry(1, "0" * 64)})
    assert Manifest.from_yaml(manifest.to_yaml()).accuracy == entries


def test_writing_a_manifest_again_gives_the_same_text(bundle):
    text = (bundle / "manifest.yaml").read_text()
    assert Manifest.from_yaml(text).to_yaml() == text
    assert text.startswith("format: 1\n")
