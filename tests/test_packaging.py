"""What `pip install` puts where."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names of the files in the wheel of this checkout, built outside of it.

    Without the CUDA kernels, which take a minute: tests/ops/test_cuda_library.py is about those of the installation.
    """
    pytest.importorskip("scikit_build_core", reason="needs scikit-build-core, of the extra `test`")
    folder = tmp_path_factory.mktemp("wheel")
    build = f"--config-settings=build-dir={folder / 'build'}"
    no_cuda = "--config-settings=cmake.define.VMP_EDGE_CUDA=OFF"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", build, no_cuda]
    subprocess.run([*command, "-w", str(folder), str(ROOT)], check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


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
