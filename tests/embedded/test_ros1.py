"""The ROS 1 node under a real roscore: images in, recognitions out. On an engine that needs nothing."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from brightness_engine import LABELS
from bundles import SUPPORT
from embedded import ROOT, cmake, write_fake
from processes import heed_interrupts

PACKAGE = ROOT / "runtimes" / "embedded" / "ros1" / "vmp_edge_ros"
PYTHON = "/usr/bin/python3"  # Debian's, which has rospy
BLACK, WHITE = LABELS[0], LABELS[2]
AT_ONCE = {"smoothing_windows": 0, "smoothing_margin": 0, "smoothing_hold": 1}
NAMES = (f"/test{number}" for number in itertools.count())  # parameters stay with the master
NEEDED = "catkin libroscpp-dev libsensor-msgs-dev ros-std-msgs ros-message-generation python3-roslaunch python3-rospy"


@pytest.fixture(scope="session")
def prefix(built, tmp_path_factory):
    """Where the library and the ROS package are installed."""
    imports = "import rospy, sensor_msgs.msg, rosgraph_msgs.msg"
    if (
        not shutil.which("roscore")
        or subprocess.run([PYTHON, "-c", imports], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"needs ROS 1 (Debian: apt install {NEEDED})")
    prefix = tmp_path_factory.mktemp("ros1")
    install(built / "vmp_edge", prefix)
    options = (f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_INSTALL_PREFIX={prefix}", f"-DPYTHON_EXECUTABLE={PYTHON}")
    try:
        install(cmake(PACKAGE, tmp_path_factory.mktemp("ros1-build"), *options), prefix)
    except AssertionError as error:
        if "Could not find a package configuration file" in str(error):
            pytest.skip(f"needs ROS 1 (Debian: apt install {NEEDED})")
        raise
    return prefix


def install(build, prefix):
    command = [sys.executable, "-m", "cmake", "--install", str(build), "--prefix", str(prefix)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def environment(prefix, tmp_path_factory):
    """That of ROS's commands, with a roscore behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("ros-home")
    paths = {"ROS_PACKAGE_PATH": "share", "CMAKE_PREFIX_PATH": ".", "PYTHONPATH": "lib/python3/dist-packages"}
    found = {
        **os.environ,
        **{name: os.pathsep.join([str(prefix / path), os.environ.get(name, "")]) for name, path in paths.items()},
        "ROS_HOME": str(home),
        "ROS_MASTER_URI": f"http://127.0.0.1:{port}",
        "ROS_IP": "127.0.0.1",
        "ROSCONSOLE_STDOUT_LINE_BUFFERED": "1",
    }
    with (home / "roscore.log").open("w") as log:
        core = start(["roscore", "-p", str(port)], found, stdout=log, stderr=log)
        yield found
        stop(core)


def start(command, environment, **options):
    return subprocess.Popen(
        [str(word) for word in command], env=environment, text=True, preexec_fn=heed_interrupts, **options
    )


def stop(process):
    """Ends a process as Ctrl-C does, so that it ends its own; its exit code."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


class Node:
    """A running node in a namespace of its own; `command` starts it."""

    def __init__(self, command, environment, namespace, log):
        self.environment, self.namespace, self.log = environment, namespace, log
        with log.open("w") as out:
            self.process = start(command, environment, stdout=out, stderr=out)

    def ask(self, *steps):
        """The recognitions of each step; a step is the number to wait for and the images."""
        plan = [{"expect": expect, "images": images} for expect, images in steps]
        client = [PYTHON, SUPPORT / "ros1_client.py", json.dumps(plan), f"__ns:={self.namespace}"]
        done = subprocess.run(client, capture_output=True, text=True, env=self.environment, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:] + self.log.read_text()
        return json.loads(done.stdout.splitlines()[-1])

    def lines(self):
        return self.log.read_text().splitlines()


@pytest.fixture
def launch(prefix, environment, tmp_path, engine_folder):
    """Starts nodes on a bundle; what still runs at the end must end well."""
    nodes = []

    def launching(bundle, **parameters):
        namespace = next(NAMES)
        values = {"bundle": bundle, "libraries": engine_folder, **parameters}
        program = prefix / "lib" / "vmp_edge_ros" / "vmp_edge_node"
        command = [
            program,
            f"__ns:={namespace}",
            *(f"_{name}:={value}" for name, value in values.items() if value != ""),
        ]
        nodes.append(Node(command, environment, namespace, tmp_path / f"node{len(nodes)}.log"))
        return nodes[-1]

    yield launching
    for node in nodes:
        assert node.process.poll() is not None or stop(node.process) == 0


def image(value, stamp=None, encoding="mono8", width=20, height=16, **others):
    """A grey image; `stamp` in seconds and nanoseconds, None for none."""
    pattern = [value] if encoding in ("mono8", "rgb8", "bgr8") else [16 + value * 219 // 255, 128]
    stamp = {} if stamp is None else {"stamp": stamp}
    return {"encoding": encoding, "width": width, "height": height, "pattern": pattern, **stamp, **others}


def four(value, first, **others):
    """The images of a window, from a second on."""
    return [image(value, (first, 123_456_789 * index), **others) for index in range(4)]


def test_recognitions(launch, fake):
    node = launch(fake, top=2)
    (first,), (second,) = node.ask((1, four(255, 1_700_000_000)), (1, four(255, 1_700_000_001)))
    assert (first["label"], first["frame"], first["dropped"], first["frame_id"]) == (WHITE, 3, 0, "front")
    assert first["stamp"] == [1_700_000_000, 370_370_367]  # to the nanosecond
    assert first["window_start"] == pytest.approx(1_700_000_000, abs=1e-6)
    assert first["labels"][0] == WHITE and len(first["labels"]) == len(first["scores"]) == 2
    assert first["score"] == first["scores"][0] > 0.9 and first["latency"] > 0
    assert (second["frame"], second["stamp"][0]) == (7, 1_700_000_001)


def test_encodings(launch, fake):
    kinds = [
        {"encoding": "mono8", "width": 31, "height": 17},
        {"encoding": "rgb8", "padding": 5},
        {"encoding": "bgr8", "width": 1, "height": 1},
        {"encoding": "yuv422_yuy2", "width": 64, "height": 3},
        {"encoding": "yuyv", "padding": 2},
    ]
    steps = [
        (1, four(value, 10 + index, **kind)) for index, (kind, value) in enumerate(itertools.product(kinds, (255, 0)))
    ]
    answers = launch(fake, **AT_ONCE).ask(*steps)
    assert [[found["label"] for found in answer] for answer in answers] == [[WHITE], [BLACK]] * len(kinds)


def test_colours_are_in_the_right_order(launch, fake, edge, loaded):
    """Channels are normalised by themselves: red as blue has other scores."""
    pattern = [200, 90, 10]
    steps = [
        (1, [image(0, (second, index), encoding, pattern=pattern) for index in range(4)])
        for second, encoding in ((1, "rgb8"), (2, "bgr8"))
    ]
    answers = launch(fake, **AT_ONCE).ask(*steps)
    for (found,), order in zip(answers, (pattern, pattern[::-1]), strict=True):
        expected = edge.predict(loaded, np.full((4, 16, 20, 3), order, np.uint8))
        assert (found["label"], found["score"]) == (expected["name"], pytest.approx(expected["score"], abs=1e-5))


def test_without_stamps_it_is_now(launch, fake):
    (((found),),) = launch(fake).ask((1, [image(255) for _ in range(4)]))
    assert abs(found["stamp"][0] - time.time()) < 60


def test_a_recording_that_starts_again(launch, fake):
    """Frames from before the jump are in no window, and stamps go back, too."""
    node = launch(fake, hop=1)
    answers = node.ask(
        (1, four(255, 100)),
        (0, [image(0, (50, index)) for index in range(3)]),
        (1, [image(0, (50, 3))]),
        (1, four(0, 7)),
    )
    told = [[(found["label"], found["frame"], found["stamp"]) for found in answer] for answer in answers]
    assert told == [[(WHITE, 3, [100, 370_370_367])], [], [(BLACK, 7, [50, 3])], [(BLACK, 11, [7, 370_370_367])]]
    assert sum("time jumped back" in line for line in node.lines()) == 2


def test_images_that_it_cannot_take_are_left_out(launch, fake):
    node = launch(fake)
    wrong = [
        *(image(9, encoding="yuv422") for _ in range(3)),  # UYVY
        *(image(9, size=100) for _ in range(3)),
        *(image(9, width=7, encoding="yuyv", padding=2) for _ in range(3)),
        image(9, width=0),
        image(9, height=0),
    ]
    wrong = [{**one, "pause": 0.2} for one in wrong]  # a burst of them would not fit into the node's queue
    (found,) = node.ask((0, wrong), (1, four(255, 1)))[1]
    assert (found["label"], found["frame"]) == (WHITE, 3)
    warnings = [line for line in node.lines() if "WARN" in line and "jumped" not in line]
    for words in ("'yuv422' are left out", "less data", "must be even", "pixels"):
        assert any(words in line for line in warnings)
    assert len(warnings) == 5  # one of them for each of two sizes


def test_images_go_on_while_it_recognises(launch, engine_folder, tmp_path):
    slow = write_fake(tmp_path / "slow", engine_folder, program="1000 0")
    images = [image(255, (index, 0), pause=0.005) for index in range(200)]
    ((first, second, *_),) = launch(slow, hop=1).ask((2, images))
    assert second["frame"] > first["frame"] + 16 and second["dropped"] > 0


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"bundle": ""}, "set the parameter 'bundle'"),
        ({"bundle": "/nowhere"}, "/nowhere does not exist"),
        ({"hop": 0}, "hop is 0"),
        ({"hop": "four"}, "'hop' is of the wrong type"),
        ({"libraries": "/nowhere"}, "libexecutorch.so"),
    ],
)
def test_wrong_parameters_end_it_with_one_line(launch, fake, parameters, words):
    node = launch(**{"bundle": fake, **parameters})
    assert node.process.wait(60) == 1
    (line,) = node.lines()
    assert "FATAL" in line and words in line


def test_an_engine_that_fails_ends_it(launch, engine_folder, tmp_path):
    node = launch(write_fake(tmp_path / "failing", engine_folder, program="0 2"))
    assert len(node.ask((1, four(0, 1)), (0, four(0, 2)))[0]) == 1
    assert node.process.wait(60) == 1
    assert [line for line in node.lines() if "running the model failed: it was told to fail" in line] == node.lines()


def test_without_the_library_cmake_says_what_to_install(tmp_path, prefix):
    with pytest.raises(AssertionError, match="libvmp_edge is missing"):
        cmake(PACKAGE, tmp_path, "-DCMAKE_DISABLE_FIND_PACKAGE_vmp_edge=ON", f"-DPYTHON_EXECUTABLE={PYTHON}")


def test_roslaunch(environment, fake, engine_folder, tmp_path):
    arguments = [f"bundle:={fake}", f"libraries:={engine_folder}", "image:=/image"]
    command = ["roslaunch", "vmp_edge_ros", "vmp_edge.launch", *arguments]
    node = Node(command, environment, "/", tmp_path / "launch.log")
    ((found,),) = node.ask((1, four(255, 1)))
    assert found["label"] == WHITE
    assert stop(node.process) == 0
