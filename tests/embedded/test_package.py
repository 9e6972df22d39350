"""Other projects find the installed library: by pkg-config and by CMake, in any folders, moved, and from C alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from embedded import ROOT, cmake

EMBEDDED = ROOT / "runtimes" / "embedded"
PROGRAM = '#include <stdio.h>\n#include "vmp_edge.h"\nint main(void) { puts(vmp_edge_version()); return 0; }\n'
PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(robot {language})
find_package(vmp_edge 0.1 REQUIRED)
add_executable(robot {source})
target_link_libraries(robot PRIVATE vmp_edge::vmp_edge)
"""


def configure(build: Path, *options: str) -> None:
    """Configure the library without building it."""
    command = [sys.executable, "-m", "cmake", "-S", EMBEDDED, "-B", build, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def flags(folder: Path, *what: str) -> list[str]:
    """Return what pkg-config says of the vmp_edge.pc in a folder."""
    if shutil.which("pkg-config") is None:
        pytest.skip("needs pkg-config")
    environment = {"PKG_CONFIG_PATH": str(folder), "PATH": "/usr/bin:/bin"}
    command = [shutil.which("pkg-config"), *what, "vmp_edge"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()


@pytest.mark.parametrize("libraries", ["lib", "lib64", "lib/x86_64-linux-gnu", "a/b/c/d"])
def test_pkg_config_with_any_library_folder(tmp_path, libraries):
    configure(tmp_path / "build", f"-DCMAKE_INSTALL_PREFIX={tmp_path}/prefix", f"-DCMAKE_INSTALL_LIBDIR={libraries}")
    moved = tmp_path / "moved" / libraries  # where the whole prefix was moved to
    (moved / "pkgconfig").mkdir(parents=True)
    shutil.copy(tmp_path / "build" / "vmp_edge.pc", moved / "pkgconfig")
    include, library = (Path(word[2:]).resolve() for word in flags(moved / "pkgconfig", "--cflags", "--libs-only-L"))
    assert (include, library) == (tmp_path / "moved" / "include", moved)


def test_pkg_config_with_absolute_folders(tmp_path):
    """As distributions give them. Those outside of the prefix stay where they are."""
    prefix, outside = tmp_path / "prefix", tmp_path / "outside"
    folders = [f"-DCMAKE_INSTALL_LIBDIR={outside}/lib", f"-DCMAKE_INSTALL_INCLUDEDIR={prefix}/include/vmp"]
    configure(tmp_path / "build", f"-DCMAKE_INSTALL_PREFIX={prefix}", *folders)
    found = flags(tmp_path / "build", "--cflags", "--libs-only-L")
    assert found == [f"-I{prefix}/include/vmp", f"-L{outside}/lib"]


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    """The prefix of the static library, moved after it was installed."""
    folder = tmp_path_factory.mktemp("static")
    configure(folder / "check")
    options = ["-DBUILD_SHARED_LIBS=OFF", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_INSTALL_LIBDIR=lib/some-linux-gnu"]
    build = cmake(EMBEDDED, folder / "build", f"-DCMAKE_INSTALL_PREFIX={folder}/prefix", *options)
    subprocess.run([sys.executable, "-m", "cmake", "--install", build], check=True, capture_output=True)
    return (folder / "prefix").rename(folder / "moved")


@pytest.mark.parametrize("language, source", [("C", "main.c"), ("CXX", "main.cpp"), ("C CXX", "main.c")])
def test_static_library_by_find_package(static, tmp_path, language, source):
    (tmp_path / source).write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(PROJECT.format(language=language, source=source))
    build = cmake(tmp_path, tmp_path / "build", f"-Dvmp_edge_DIR={static}/lib/some-linux-gnu/cmake/vmp_edge")
    assert subprocess.run([build / "robot"], capture_output=True, text=True, check=True).stdout.count(".") == 2


def test_static_library_by_pkg_config(static, tmp_path):
    (tmp_path / "main.c").write_text(PROGRAM)
    found = flags(static / "lib" / "some-linux-gnu" / "pkgconfig", "--static", "--cflags", "--libs")
    subprocess.run(["cc", tmp_path / "main.c", "-o", tmp_path / "main", *found], check=True)
    assert subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.count(".") == 2


def test_the_package_names_no_path_of_the_building_machine(static):
    files = [path for path in static.rglob("*") if path.suffix in (".cmake", ".pc")]
    assert len(files) >= 5
    for path in files:
        text = path.read_text()
        assert "libyaml.so" not in text and "libyaml.a" not in text and str(static.parent) not in text, path
