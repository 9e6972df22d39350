"""`vmp-edge run` in a process of its own: signals, pipes, and the webcam app."""

import json
import signal
import subprocess
from pathlib import Path

import cv2
import pytest
from commands import RUN, last_json, start

ROOT = Path(__file__).resolve().parents[2]


def read_results(process):
    """Read some results: the first one may be printed before the first frame is in the recording."""
    for _ in range(5):
        assert "label" in json.loads(process.stdout.readline())


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_with_a_summary_and_a_whole_recording(bundle, tmp_path, endless, number, expected):
    code, options = endless
    record = tmp_path / "out.mp4"
    arguments = ["run", bundle, "--source", "endless ! x", "--headless", "--json", "--record", record]
    process = start(code, *arguments, **options)
    read_results(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    summary = last_json(out.splitlines())["summary"]
    assert process.returncode == expected and err == "vmp-edge: stopped\n"
    assert summary["interrupted"] and summary["recorded"] == str(record)
    capture = cv2.VideoCapture(str(record))
    assert capture.read()[0] and not list(tmp_path.glob(".out*"))


def test_a_second_signal_of_the_same_cause_spoils_nothing(bundle, tmp_path, endless):
    """A terminal that is closed sends SIGHUP, its shell sends another one, and a service manager SIGTERM, too."""
    code, options = endless
    finish = "from vmp_edge.view.recording import Recorder\nimport os, signal\nfinish = Recorder.finish\n"
    finish += "def again(self):\n    os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGTERM)\n"
    finish += "    return finish(self)\nRecorder.finish = again\n"
    arguments = ["run", bundle, "--source", "endless ! x", "--headless", "--json", "--record", tmp_path / "out.avi"]
    process = start(finish + code, *arguments, **options)
    read_results(process)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 129 and err == "vmp-edge: stopped\n"
    assert last_json(out.splitlines())["summary"]["recorded"] == str(tmp_path / "out.avi")


def test_a_terminal_that_is_gone_takes_no_summary_and_the_recording_is_finished(bundle, tmp_path, endless):
    code, options = endless
    record = tmp_path / "out.avi"
    arguments = ["run", bundle, "--source", "endless ! x", "--headless", "--json", "--record", record]
    process = start(code, *arguments, "--events", tmp_path / "events.jsonl", **options)
    read_results(process)
    process.send_signal(signal.SIGHUP)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 129
    assert cv2.VideoCapture(str(record)).read()[0] and not list(tmp_path.glob(".out*"))


def test_a_hangup_that_is_ignored_at_the_start_stays_ignored(bundle, endless):
    """As under `nohup`."""
    code, options = endless
    arguments = ["run", bundle, "--source", "endless ! x", "--headless", "--json", "--max-frames", 30]
    process = start("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + code, *arguments, **options)
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    summary = last_json(out.splitlines())["summary"]
    assert process.returncode == 0, err
    assert summary["frames"] == 30 and not summary["interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_stopped_command_says_so_once(bundle, number):
    process = start(RUN, "bench", bundle, "--windows", 10**9, "--json")
    while "loading" not in process.stderr.readline():
        pass
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == "vmp-edge: stopped\n" and json.loads(out) == {"error": "stopped"}


def test_a_pipe_of_frames_is_recognised(bundle):
    pixels = b"".join(bytes([value]) * (64 * 48) for value in range(10, 220, 7))
    command = ["run", bundle, "--source", "raw:64x48:grey:30", "--headless", "--json"]
    process = start(RUN, *command, stdin=subprocess.PIPE, binary=True)
    out, err = process.communicate(pixels, timeout=60)
    summary = last_json(out.decode().splitlines())["summary"]
    assert process.returncode == 0, err
    assert summary["frames"] == 30 and summary["source"] == "the standard input"
    assert list(summary["labels"]) == ["brighter"]


def test_a_reader_that_goes_away_ends_it_quietly(bundle, endless):
    code, options = endless
    process = start(code, "run", bundle, "--source", "endless ! x", "--headless", "--json", **options)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == ""


def test_webcam_app_is_the_same_as_run(bundle, video):
    code = f"sys.argv[0] = 'webcam.py'; import runpy; runpy.run_path({str(ROOT / 'apps' / 'webcam.py')!r}, "
    code += "run_name='__main__')"
    process = start(code, "--bundle", bundle, "--source", video, "--headless", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert last_json(out.splitlines())["summary"]["frames"] == 60
    process = start(code, "--bundle", "nothing")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.startswith("vmp-edge: nothing does not exist") and err.count("\n") == 1
