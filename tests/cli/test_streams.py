"""A standard output that is closed, full, broken or of a small character set: no traceback, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from bundles import make_manifest, write_bundle
from commands import RUN, last_json, run, start

from vmp_edge.bundle.reading import Bundle

FULL = Path("/dev/full")
LABELS = ("明るい", "暗い", "étable")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs the device /dev/full")


def open_full():
    return FULL.open("w")


@pytest.fixture
def odd_bundle(tmp_path):
    """A bundle whose labels are not ASCII."""
    return write_bundle(tmp_path / "odd", make_manifest(labels=LABELS))


def finish(process):
    """Wait for a process. Return its exit code, its output and its lines on stderr."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, (err or "").splitlines()


COMMANDS = {
    "run": ["run", "BUNDLE", "--source", "VIDEO", "--headless"],
    "run --json": ["run", "BUNDLE", "--source", "VIDEO", "--headless", "--json"],
    "verify": ["verify", "BUNDLE"],
    "info": ["info", "BUNDLE"],
    "bench": ["bench", "BUNDLE", "--windows", "2", "--warmup", "0", "--json"],
    "targets": ["targets"],
    "doctor": ["doctor", "--json"],
    "help": ["run", "--help"],
    "version": ["--version"],
}


def arguments_of(name, bundle, video):
    return [{"BUNDLE": str(bundle), "VIDEO": str(video)}.get(word, word) for word in COMMANDS[name]]


@pytest.mark.parametrize("name", ["run", "run --json", "verify", "doctor", "help"])
def test_a_closed_output_is_one_line_of_error(bundle, video, name):
    code = f"import os; os.close(1); sys.stdout = None\n{RUN}"  # as Python starts under `>&-`
    returned, _, err = finish(start(code, *arguments_of(name, bundle, video)))
    assert returned == 1
    assert err[-1] == "vmp-edge: nothing more can be written to the standard output: it is closed"
    assert [line for line in err if line.startswith("vmp-edge: ")] == err[-1:]
    assert "Traceback" not in "".join(err)


@needs_full
@pytest.mark.parametrize("name", ["run", "run --json", "info", "bench", "targets", "version"])
def test_a_full_output_is_one_line_of_error(bundle, video, name):
    with open_full() as full:
        process = start(RUN, *arguments_of(name, bundle, video), stdout=full)
    returned, _, err = finish(process)
    assert returned == 1
    assert err[-1] == "vmp-edge: nothing more can be written to the standard output: No space left on device"
    assert [line for line in err if line.startswith("vmp-edge: ")] == err[-1:]
    assert "Exception ignored" not in "".join(err)


@needs_full
def test_a_recording_is_finished_although_nobody_can_read_the_results(bundle, video, tmp_path):
    record = tmp_path / "out.avi"
    arguments = ["run", bundle, "--source", video, "--headless", "--json", "--record", record, "--clips", tmp_path]
    with open_full() as full:
        returned, _, err = finish(start(RUN, *arguments, stdout=full))
    assert returned == 1 and len(err) == 1
    assert cv2.VideoCapture(str(record)).read()[0]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["run", "targets", "version"])
def test_a_reader_that_went_away_is_not_complained_about(bundle, video, name):
    reader, writer = os.pipe()
    os.close(reader)
    process = start(RUN, *arguments_of(name, bundle, video), stdout=writer)
    os.close(writer)
    assert finish(process) == (1, None, [])


def test_without_a_place_for_messages_the_results_stay_clean(bundle, video):
    code = f"import os; os.close(2); sys.stderr = None\n{RUN}"  # as under `2>&-`; print(file=None) is the output
    returned, out, _ = finish(start(code, "run", bundle, "--source", video, "--json"))  # says that there is no screen
    assert returned == 0
    assert all(json.loads(line) for line in out.splitlines())
    returned, out, _ = finish(start(code, "run", "nothing", "--source", video, "--json"))
    assert returned == 1 and "does not exist" in json.loads(out)["error"]


@needs_full
def test_messages_that_cannot_be_written_do_not_end_the_work(bundle, video):
    with open_full() as full:
        process = start(RUN, "bench", bundle, "--windows", 2, "--warmup", 0, "--json", stderr=full)
    returned, out, _ = finish(process)
    assert returned == 0 and last_json(out.splitlines())["bundle"] == str(bundle)


def test_a_file_never_gets_the_number_of_a_closed_stream(bundle, video, tmp_path):
    """What libraries print on file descriptor 2 would go into the recording."""
    record = tmp_path / "out.avi"
    code = "import os\nfor number, name in enumerate(('stdin', 'stdout', 'stderr')):\n"
    code += "    os.close(number); setattr(sys, name, None)\n"
    code += "from vmp_edge.view import recording\nopened = recording.Recorder._open\n"
    code += "def spy(self, *arguments):\n    opened(self, *arguments)\n"
    code += "    links = [os.readlink(f'/proc/self/fd/{number}') for number in (0, 1, 2)]\n"
    code += "    assert links == [os.devnull] * 3, links\n"
    code += "recording.Recorder._open = spy\nfrom vmp_edge.cli import main\n"
    code += "code = main(sys.argv[1:])\nos._exit(code)"
    returned, _, _ = finish(start(code, "run", bundle, "--source", video, "--headless", "--record", record))
    assert returned == 1 and cv2.VideoCapture(str(record)).read()[0]


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:surrogateescape"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
    ids=["latin-1", "ascii", "C", "C as Python takes it", "utf-8"],
)
def test_results_are_shown_as_far_as_the_encoding_goes(odd_bundle, video, environment):
    options = {"env": {**os.environ, **environment}, "binary": True}
    command = ["run", odd_bundle, "--source", video, "--headless"]
    returned, out, err = _bytes(start(RUN, *command, "--json", **options))
    assert returned == 0, err
    lines = out.decode("latin-1" if "latin" in str(environment) else "utf-8").splitlines()
    assert set(last_json(lines)["summary"]["labels"]) == set(LABELS[:2])
    returned, out, err = _bytes(start(RUN, *command, **options))
    assert returned == 0, err
    shown = out.decode("latin-1" if "latin" in str(environment) else "utf-8")
    assert LABELS[0] in shown or LABELS[0].encode("ascii", "backslashreplace").decode() in shown


def _bytes(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err.decode(errors="replace")


def test_labels_cannot_forge_lines_or_colours(capsys, tmp_path, video, monkeypatch):
    labels = ("\x1b[31mred\nvmp-edge: fine", "dark\rer", "\u202esteady")
    made = write_bundle(tmp_path / "bundle")
    whole = Bundle.open

    def forged(*arguments, **options):
        bundle = whole(*arguments, **options)  # with labels that the loader would refuse
        object.__setattr__(bundle.manifest, "labels", labels)
        object.__setattr__(bundle.manifest, "name", "\x1b]0;title\a")
        return bundle

    monkeypatch.setattr(Bundle, "open", forged)
    for arguments in (["info", made], ["run", made, "--source", video, "--headless"], ["info", made, "--json"]):
        code, out, err = run(capsys, *arguments)
        assert code == 0, err
        assert all(line.isprintable() for line in [*out, *err])
        assert not any(line.startswith("vmp-edge: fine") for line in out)


def test_names_and_arguments_are_escaped_in_messages(capsys, bundle):
    name = "no\x1b[31m such\n\udce9.mp4"
    for arguments in (["run", bundle, "--source", name], ["info", name], ["run", bundle, name], ["run", "--hop", name]):
        code, out, err = run(capsys, *arguments)
        assert code in (1, 2) and out == []
        assert all(line.isprintable() for line in err)


@pytest.mark.parametrize(
    "arguments", [["run", "--json"], ["nonsense", "--json"], ["bench", "b", "--windows", "x", "--json"]]
)
def test_wrong_usage_is_an_object_too(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and last_json(out)["error"] in err[-1]


def test_a_library_that_is_missing_is_one_line(tmp_path):
    code = "import sys; sys.modules['cv2'] = None\nfrom vmp_edge.cli import main; sys.exit(main(['targets', '--json']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("vmp-edge: this needs cv2, which is not installed; run: ") and " install " in line
    assert json.loads(done.stdout)["error"] in line
