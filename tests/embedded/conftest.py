"""The embedded library, built once for the tests that need it."""

from __future__ import annotations

import shutil

import pytest
from embedded import NATIVE, Library, cmake, have_gstreamer, write_fake
from evil import make_evil

from vmp_edge.runtimes.tvm.library import package_folder


@pytest.fixture(scope="session")
def built(once):
    """The folder with libvmp_edge.so, the engine that needs nothing, the suite, and the plugin where GStreamer is.

    It is a debug build, which all workers share.
    """
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        pytest.skip("needs a C++ compiler")
    options = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-O1", f"-DVMP_EDGE_TVM_FFI={package_folder('tvm_ffi')}"]
    if have_gstreamer():
        options.append("-DVMP_EDGE_GSTREAMER=ON")
    return once.make("embedded", lambda folder: cmake(NATIVE, folder, *options))


@pytest.fixture(scope="session")
def edge(built):
    """The library by ctypes."""
    return Library(built / "vmp_edge" / "libvmp_edge.so")


@pytest.fixture(scope="session")
def engine_folder(built):
    """The folder of the engine that needs nothing."""
    return built / "engine"


@pytest.fixture
def fake(tmp_path, engine_folder):
    """The path of a bundle of that engine."""
    return write_fake(tmp_path / "fake", engine_folder)


@pytest.fixture
def evil(tmp_path):
    """A library whose code leaves a mark."""
    return make_evil(tmp_path)


@pytest.fixture
def loaded(edge, fake, engine_folder):
    """A recogniser of it."""
    recognizer = edge.recognizer(fake, engine_folder)
    yield recognizer
    edge.c.vmp_edge_recognizer_destroy(recognizer)


@pytest.fixture
def stream(edge, loaded):
    """A function that makes streams of it."""
    handles = []

    def make(**options):
        handles.append(edge.stream(loaded, **options))
        return handles[-1]

    yield make
    for handle in handles:
        edge.c.vmp_edge_stream_destroy(handle)
