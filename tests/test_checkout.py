"""A checkout runs its own code or says in one line what to do: not installed, and in another one's environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vmp_edge
from vmp_edge._checkout import SIBLINGS
from vmp_edge.cli import main

ROOT = Path(__file__).resolve().parents[1]
WHERE = "import vmp_edge.compile as c, vmp_edge.runtimes.native as n; print(c.__file__, *n.__path__)"


@pytest.fixture
def plain(tmp_path):
    """A copy of this checkout's Python files and C++ sources, which nothing has installed."""
    folder = tmp_path / "plain checkout"
    for name in ("vmp_edge", *SIBLINGS):
        ignored = shutil.ignore_patterns("__pycache__", "weights", "build")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy2(ROOT / "pyproject.toml", folder)
    return folder


def start(folder, *command, path=(), **environment):
    """Run Python in a folder, without what its own site-packages install, and with `path` in its place."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VMP_"))}
    clean["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, "-S", *map(str, command)],  # -S: no .pth file, so no editable install
        cwd=folder,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def libraries():
    """The folders of installed packages, without this one: their .pth files are not read."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


PROGRAMS = [["compile/build.py", "--target", "jetson-orin"], ["apps/webcam.py"], ["apps/demo.py"]]


@pytest.mark.parametrize("command", [*PROGRAMS, ["-m", "vmp_edge", "targets"]], ids=lambda command: command[0])
def test_where_nothing_is_installed_one_line_says_what_to_install(plain, command):
    done = start(plain, *command, "--json")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("vmp-edge: this needs ") and "which is not installed; run: " in line
    assert line.endswith(" install -e '.[compile]'" if "compile" in command[0] else " install -e .")
    assert json.loads(done.stdout)["error"] in line


@pytest.mark.parametrize("command", PROGRAMS, ids=lambda command: command[0])
def test_where_the_libraries_are_there_the_programs_run(plain, tmp_path, command):
    done = start(tmp_path, plain / command[0], "--help", path=libraries())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_a_checkout_that_is_not_installed_finds_its_folders(plain):
    done = start(plain, "-c", WHERE, path=libraries())
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().split(f" {plain}")
    assert first == f"{plain}/compile/__init__.py" and second == "/runtimes/native"
    done = start(plain, "compile/build.py", "--target", "host", "--model", "nonsense", path=libraries())
    assert "unknown model 'nonsense'" in done.stderr.splitlines()[-1]


def test_a_checkout_is_not_mixed_with_an_installed_package(plain, tmp_path):
    """Beside a wheel's package, `import vmp_edge` in the checkout's folder takes all of the checkout."""
    installed = tmp_path / "site" / "vmp_edge"
    for name in (".", *SIBLINGS):
        (installed / name).mkdir(parents=True, exist_ok=True)
        (installed / name / "__init__.py").write_text("raise SystemExit('the installed package')\n")
    path = [installed.parent, *libraries()]
    done = start(plain, "-c", WHERE, path=path)
    assert done.stdout.startswith(f"{plain}/compile/__init__.py"), done.stderr
    for command in (["-m", "vmp_edge"], ["compile/build.py"]):
        done = start(plain, *command, "--help", path=path)
        assert done.returncode == 0 and done.stdout.startswith("usage: vmp-edge"), done.stderr


@pytest.mark.parametrize("command", PROGRAMS, ids=lambda command: command[0])
def test_in_the_environment_of_another_checkout_nothing_runs(plain, tmp_path, command):
    """An editable install goes before every path; its stand-in here is a finder."""
    code = f"""
import importlib.util, runpy, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        other = {str(ROOT / "vmp_edge" / "__init__.py")!r}
        return importlib.util.spec_from_file_location(name, other) if name == "vmp_edge" else None
sys.meta_path.insert(0, Finder())
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = start(tmp_path, "-c", code, plain / command[0], *command[1:], path=libraries())
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert f"has the vmp-edge of {ROOT}, not that of this checkout" in line and f"-e '{plain}" in line


def test_a_build_says_if_it_is_not_of_the_checkout_that_one_is_in(plain, capsys, monkeypatch):
    monkeypatch.chdir(plain)
    assert main(["build", "--target", "nonsense"]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"vmp-edge: this is the vmp-edge of {ROOT}, not that of the checkout in this folder ({plain})"
    monkeypatch.chdir(Path(vmp_edge.__file__).parents[1])
    assert main(["build", "--target", "nonsense"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_checkout_that_is_not_installed_builds_its_native_library(plain, tmp_path):
    pytest.importorskip("cmake", reason="needs cmake, of the extra `compile`")
    code = "from vmp_edge.ops import _native; print(_native.library_path(), *_native.isas())"
    cache = tmp_path / "cache"
    for _ in range(2):
        done = start(plain, "-c", code, path=libraries(), VMP_EDGE_CACHE=str(cache), HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(cache)) and done.stdout.split()[-1] == "scalar"
    assert [path.name for path in cache.glob("native-*/*")] == ["libvmp_ops.so"]
    done = start(plain, "-c", code, path=libraries(), VMP_EDGE_CACHE=str(tmp_path / "other"), PATH="/nowhere")
    assert "C++ compiler" in done.stderr.splitlines()[-1]


def test_the_tests_are_those_of_the_package(plain):
    """Otherwise, pytest in one checkout would test another one."""
    shutil.copytree(ROOT / "tests" / "support", plain / "tests" / "support")
    shutil.copy2(ROOT / "tests" / "conftest.py", plain / "tests")
    (plain / "tests" / "test_nothing.py").write_text("def test_nothing(): pass\n")
    done = start(plain / "tests", "-m", "pytest", "-p", "no:cacheprovider", path=[ROOT, *libraries()])
    assert done.returncode == 4 and "would test" in done.stdout + done.stderr, done.stdout
