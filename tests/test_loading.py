"""`vmp_edge.load` by names and checkpoints: built once, kept, and built again when something has changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import typing
from dataclasses import fields
from pathlib import Path

import pytest
from bundles import SUPPORT, make_manifest, write_bundle
from hub_server import Hub, serve
from synthetic_sources import wait_until

import vmp_edge
from vmp_edge import loading
from vmp_edge.compile import pipeline
from vmp_edge.compile.request import Request
from vmp_edge.errors import BuildError, BundleError, MissingDependencyError, UsageError
from vmp_edge.loading import BuildOptions, load
from vmp_edge.progress import note

NANO = "egomotion-nano"
PUBLISHED = "videomamba-tiny-k400-8x224"
FILE = "OpenGVLab/VideoMamba/videomamba_t16_k400_f8_res224.pth"

# A program that loads what its arguments say. Its builds are stand-ins, each of which writes a line to a file.
PROGRAM = f"""
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background has ignored
sys.path.insert(0, {str(SUPPORT)!r})
import brightness_engine, bundles, vmp_edge
from vmp_edge import zoo
from vmp_edge.bundle.writing import staged_bundle
from vmp_edge.compile import pipeline
from vmp_edge.files import digest

log, seconds, text = sys.argv[1:]

def build(request, progress):
    given = request.checkpoint
    if request.model is not None and (published := zoo.find(request.model)) is not None:
        given = f"hf://{{published.repository}}/{{published.file}}"
    tools = {{}}
    if given is not None:
        path = zoo.fetch(zoo.Address.parse(given)) if str(given).startswith("hf://") else given
        tools = {{"checkpoint": digest(path)}}
    with open(log, "a") as file:
        file.write(f"{{text}}\\n")
    with staged_bundle(request.output) as staging:
        staging.add("model.json", b'{{"gain": 5.0}}')
        time.sleep(float(seconds))
        staging.seal(bundles.make_manifest(tools=tools))

pipeline.build = build
try:
    with vmp_edge.load(text, engine="torch") as recognizer:
        print(recognizer.bundle.path, recognizer.manifest.tools.get("checkpoint"))
except vmp_edge.VmpError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builds(cache, monkeypatch):
    """The requests of the builds, which are stand-ins that take no time."""
    pytest.importorskip("torch")
    requests: list[Request] = []

    def build(request, progress):
        requests.append(request)
        note("[1/1] build")
        write_bundle(request.output, make_manifest(name=request.model or "checkpoint", target=request.target))

    monkeypatch.setattr(pipeline, "build", build)
    return requests


@pytest.fixture
def checkpoint(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def loaded(text, **options):
    with load(text, engine="torch", **options) as recognizer:
        return recognizer.bundle.path


def start(tmp_path, text, seconds=0.0, **environment):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {
        "VMP_EDGE_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log"), str(seconds), text]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**inherited, **settings, **environment}
    )


def finish(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    return output.split(), errors


def log(tmp_path):
    return (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []


def test_a_name_is_built_at_first_use_and_says_so(builds, cache, capsys):
    path = loaded(NANO, target="host")
    written = capsys.readouterr()
    assert path.is_relative_to(cache / "bundles" / vmp_edge.__version__) and not written.out
    assert written.err.startswith(f"vmp-edge: {NANO} is built for host once, and kept in {path.parent}")
    assert "VMP_EDGE_CACHE" in written.err and "[1/1] build" in written.err
    assert loaded(NANO) == path, "the target is host unless said otherwise"
    assert len(builds) == 1 and not capsys.readouterr().err
    assert builds[0].model == NANO and builds[0].target == "host" and builds[0].engine == "torch"


def test_presets_published_names_and_options_have_bundles_of_their_own(builds, monkeypatch):
    monkeypatch.setattr(loading.hub, "version", lambda address: f"version of {address}")
    monkeypatch.setattr(loading.zoo, "fetch", lambda address: Path(__file__))
    monkeypatch.setattr(loading.hub, "version_of", lambda path: "version of " + f"hf://{FILE}")
    paths = {loaded(NANO), loaded(NANO, features=True), loaded("videomamba-tiny"), loaded(PUBLISHED)}
    assert len(paths) == len(builds) == 4
    assert [(one.model, one.checkpoint, one.features) for one in builds] == [
        (NANO, None, False),
        (NANO, None, True),
        ("videomamba-tiny", None, False),
        (PUBLISHED, None, False),
    ]


def test_a_published_model_without_classes_gives_features(builds, monkeypatch):
    name = next(model.name for model in vmp_edge.zoo.published() if not model.classes)
    monkeypatch.setattr(loading.hub, "version", lambda address: None)
    monkeypatch.setattr(loading.zoo, "fetch", lambda address: Path(__file__))
    loaded(name)
    assert builds[0].features


def test_a_checkpoint_is_built_again_when_its_content_changes(builds, checkpoint):
    first = loaded(checkpoint, target="host")
    assert loaded(str(checkpoint)) == first, "a checkpoint is known by its suffix"
    os.utime(checkpoint, (1, 1))
    assert loaded(checkpoint) == first and len(builds) == 1
    times = checkpoint.stat()
    content = bytearray(checkpoint.read_bytes())
    content[-100] ^= 1
    checkpoint.write_bytes(content)
    os.utime(checkpoint, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = loaded(checkpoint)
    assert second != first and len(builds) == 2
    assert not first.exists(), "the bundle of the old content is removed"
    assert builds[1].checkpoint == checkpoint


def test_a_relative_path_is_the_same_checkpoint(builds, checkpoint, monkeypatch):
    first = loaded(checkpoint)
    monkeypatch.chdir(checkpoint.parent)
    assert loaded(checkpoint.name) == first and len(builds) == 1


def test_labels_count_by_their_content(builds, checkpoint, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    first = loaded(checkpoint, labels=labels)
    assert loaded(checkpoint, labels=str(labels)) == first and builds[0].labels == labels
    labels.write_text("one\nthree\n")
    assert loaded(checkpoint, labels=labels) != first and len(builds) == 2


def test_another_version_of_the_package_builds_again(builds, monkeypatch):
    first = loaded(NANO)
    monkeypatch.setattr(vmp_edge, "__version__", "99.0")
    second = loaded(NANO)
    assert second != first and len(builds) == 2
    assert first.exists(), "an environment with the other version may still use it"


def test_a_damaged_bundle_is_built_again(builds):
    path = loaded(NANO)
    (path / "model.json").write_bytes(b"{}")
    assert loaded(NANO) == path and len(builds) == 2
    (path / "manifest.yaml").unlink()
    (path / "other").touch()
    assert loaded(NANO) == path and len(builds) == 3


def test_a_build_that_fails_leaves_nothing(builds, cache, monkeypatch):
    def fail(request, progress):
        raise BuildError("it differs")

    working = pipeline.build
    monkeypatch.setattr(pipeline, "build", fail)
    with pytest.raises(BuildError, match="it differs"):
        loaded(NANO)
    assert not list(cache.rglob("manifest.yaml"))
    monkeypatch.setattr(pipeline, "build", working)
    assert loaded(NANO).is_dir()


def test_several_processes_build_once(tmp_path):
    pytest.importorskip("torch")
    first = start(tmp_path, NANO, 3.0)
    wait_until(lambda: log(tmp_path) or first.poll() is not None)
    others = [start(tmp_path, NANO, 3.0) for _ in range(2)]
    results = [finish(process) for process in (first, *others)]
    assert len({output[0] for output, _ in results}) == 1 and log(tmp_path) == [NANO]


def test_several_threads_build_once(builds, monkeypatch):
    together, paths = threading.Barrier(4), []
    working = pipeline.build

    def slow(request, progress):
        wait_until(lambda: len(paths) == 0)
        working(request, progress)

    monkeypatch.setattr(pipeline, "build", slow)

    def run():
        together.wait()
        paths.append(loaded(NANO))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(paths)) == 1 and len(paths) == 4 and len(builds) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_stopped_is_no_bundle(tmp_path, how):
    pytest.importorskip("torch")
    process = start(tmp_path, NANO, 60)
    wait_until(lambda: list((tmp_path / "cache").rglob("model.json")) or process.poll() is not None)
    process.send_signal(how)
    process.communicate(timeout=60)
    left = list((tmp_path / "cache").rglob("model.json"))
    assert bool(left) == (how == signal.SIGKILL)
    (path, _), _ = finish(start(tmp_path, NANO))
    assert [one.parent for one in (tmp_path / "cache").rglob("model.json")] == [Path(path)], "what was left is removed"
    assert log(tmp_path) == [NANO, NANO]


def test_a_file_of_the_hub(tmp_path):
    """Fetched once; asked about at each use; built again when it has changed; taken as it is when nobody answers."""
    pytest.importorskip("torch")
    pytest.importorskip("huggingface_hub")
    text = PUBLISHED
    with serve(Hub({FILE: b"first" * 1000})) as hub:
        first, errors = finish(start(tmp_path, text, HF_ENDPOINT=hub.endpoint))
        assert f"{text} is built for host once" in errors
        again, errors = finish(start(tmp_path, text, HF_ENDPOINT=hub.endpoint))
        assert again == first and not errors and len(hub.downloads()) == 1
        hub.files[FILE], hub.commit = b"second" * 1000, "f" * 40
        second, _ = finish(start(tmp_path, text, HF_ENDPOINT=hub.endpoint))
        assert second[1] != first[1] and len(hub.downloads()) == 2 and len(log(tmp_path)) == 2
    gone, _ = finish(start(tmp_path, text, HF_ENDPOINT=hub.endpoint))
    offline, _ = finish(start(tmp_path, text, HF_HUB_OFFLINE="1"))
    shutil.rmtree(tmp_path / "hf")
    without, _ = finish(start(tmp_path, text, HF_ENDPOINT=hub.endpoint))
    assert gone == offline == without == second and len(log(tmp_path)) == 2
    shutil.rmtree(tmp_path / "cache")
    process = start(tmp_path, text, HF_HUB_OFFLINE="1")
    assert "HubError" in process.communicate(timeout=60)[1] and process.returncode == 1


def test_a_file_that_was_copied_by_hand(tmp_path):
    pytest.importorskip("torch")
    place = tmp_path / "cache" / "checkpoints" / FILE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"first")
    first, _ = finish(start(tmp_path, f"hf://{FILE}", HF_HUB_OFFLINE="1"))
    place.write_bytes(b"second")
    second, _ = finish(start(tmp_path, f"hf://{FILE}", HF_HUB_OFFLINE="1"))
    assert first[1] != second[1]


def test_a_bundle_folder_loads_as_ever(bundle, builds, monkeypatch):
    for path in (bundle, str(bundle)):
        with load(path) as recognizer:
            assert recognizer.bundle.path == Path(path)
    with load(bundle, target="host", threads=1) as recognizer:
        assert recognizer.threads == 1
    for options in ({"target": "cuda"}, {"features": True}):
        with pytest.raises(UsageError, match="is a bundle for host already"):
            load(bundle, **options)
    bundle.rename(bundle.parent / NANO)
    monkeypatch.chdir(bundle.parent)
    with load(NANO) as recognizer:
        assert recognizer.manifest.name == "brightness", "a bundle's folder goes before a name"
    assert not builds


def test_what_nothing_has_the_name_of(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=rf"'videomamba-tiny-k400-8x22': is it {PUBLISHED}\?; `vmp-edge models`"):
        load("videomamba-tiny-k400-8x22")
    with pytest.raises(UsageError, match=r"no model, bundle or checkpoint 'absent\.pth'; `vmp-edge models`"):
        load("absent.pth", target="host")
    with pytest.raises(BundleError, match="absent"):
        load("build/absent")
    with pytest.raises(BundleError):
        load(tmp_path)
    with pytest.raises(UsageError, match="is no file on the hub"):
        load("hf://owner/file")
    with pytest.raises(TypeError, match="unexpected keyword argument 'precisoin'"):
        load(NANO, precisoin="int8")
    assert not cache.exists()


@pytest.mark.parametrize("options", [{"target": "jetson-orin"}, {"target": "android-vulkan"}])
def test_a_target_that_this_machine_is_not(builds, options):
    with pytest.raises(UsageError, match=rf"run `vmp-edge build --target {options['target']} --model {NANO}`"):
        load(NANO, **options)
    assert not builds


def test_wrong_options_are_refused_before_anything_is_fetched(builds, monkeypatch):
    monkeypatch.setattr(loading.hub, "version", lambda address: None)
    monkeypatch.setattr(loading.zoo, "fetch", lambda address: pytest.fail("it was fetched"))
    for options, message in [
        ({"target": "hots"}, "hots"),
        ({"precision": "int3"}, "int3"),
        ({"family": "videomambapro"}, "is a videomamba"),
    ]:
        with pytest.raises(UsageError, match=message):
            load(PUBLISHED, **options)


def test_without_compile_there_is_one_line(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(loading.hub, "version", lambda address: None)
    for text, option in ((NANO, f"--model {NANO}"), (f"hf://{FILE}", f"--checkpoint hf://{FILE}")):
        with pytest.raises(MissingDependencyError) as caught:
            load(text, target="host")
        message = str(caught.value)
        assert vmp_edge.installation.install_command("compile") in message and "\n" not in message
        assert f"vmp-edge build --target host {option}" in message


def test_a_bundle_that_was_built_needs_no_compile(builds, monkeypatch):
    path = loaded(NANO)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert loaded(NANO) == path


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written(builds, cache):
    path = loaded(NANO)
    folders = [path, *[parent for parent in path.parents if parent.is_relative_to(cache)]]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert loaded(NANO) == path
        with pytest.raises(UsageError, match="VMP_EDGE_CACHE"):
            loaded(NANO, features=True)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_cache_below_a_file(builds, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="VMP_EDGE_CACHE"):
        loaded(NANO)


def test_options_are_those_of_a_request():
    """All but those that `load` itself decides, and tuning, which takes hours."""
    names = {field.name for field in fields(Request)}
    others = {"target", "model", "checkpoint", "output", "threads", "tune", "tuning_log", "soc"}
    assert set(typing.get_type_hints(BuildOptions, vars(loading))) == names - others
