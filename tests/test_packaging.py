"""The wheel: its contents and its version."""

import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vmp_edge import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build the wheel of this checkout in a new folder, with CMake's files in ``cmake``; return the folder."""
    pytest.importorskip("scikit_build_core", reason="needs scikit-build-core, of the extra `test`")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    command += [f"--config-settings=build-dir={folder / 'cmake'}", str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(build):
    """The names of the files in the wheel."""
    (path,) = build.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_nothing_but_the_package_is_at_the_top(wheel):
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"vmp_edge"}


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "compile/targets/host.yaml",
        "compile/build.py",
        "calibration/__init__.py",
        "calibration/templates/report.html.j2",
        "apps/webcam.py",
        "preview/static/index.html",
        "preview/static/preview.js",
        "models/weights/egomotion-nano.pth",
        "runtimes/native/libvmp_ops.so",
        "runtimes/native/include/vmp_ops.h",
        "runtimes/native/CMakeLists.txt",  # the sources go along: bundles' libraries are built from them
        "runtimes/cuda/include/vmp_cuda.h",
        "runtimes/cuda/src/scan.cu",
        "runtimes/executorch/CMakeLists.txt",
        "runtimes/executorch/src/program.cpp",
        "runtimes/tvm/CMakeLists.txt",
        "runtimes/tvm/src/operators.cpp",
        "runtimes/embedded/cmake/version.cmake",
        "runtimes/embedded/gstreamer/vmprecognize.c",
        "runtimes/embedded/ros/bridge.hpp",
        "runtimes/embedded/ros1/vmp_edge_ros/msg/Recognition.msg",
        "runtimes/embedded/ros2/vmp_edge_ros/package.xml",
        "compile/targets/arm64.yaml",
        "compile/targets/tuning/x86-64-v4.yaml",
    ],
)
def test_the_package_is_complete(wheel, name):
    assert f"vmp_edge/{name}" in wheel


def test_one_wheel_serves_every_python(wheel):
    assert not [name for name in wheel if "cpython" in name]


def test_no_leftovers(wheel):
    assert not [name for name in wheel if "__pycache__" in name or "/build/" in name]


def test_no_cuda_library_unless_asked(build, wheel):
    assert not [name for name in wheel if "libvmp_cuda" in name]
    assert "VMP_EDGE_CUDA:BOOL=FALSE" in (build / "cmake" / "CMakeCache.txt").read_text()  # also where nvcc is missing


def test_the_wheel_has_the_version_of_the_package(build):
    assert [path.name.split("-")[1] for path in build.glob("*.whl")] == [__version__]


@pytest.mark.parametrize("ros", ["ros1", "ros2"])
def test_the_ros_packages_have_the_version_of_the_package(ros):
    package = ElementTree.parse(ROOT / "runtimes" / "embedded" / ros / "vmp_edge_ros" / "package.xml")
    assert package.findtext("version") == __version__
