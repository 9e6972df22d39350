"""The command that installs an extra fits the way in which the package itself was installed."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from vmp_edge import installation
from vmp_edge._checkout import SIBLINGS
from vmp_edge.installation import install_command

METADATA = """Metadata-Version: 2.4
Name: vmp-edge
Version: 0.1.0
Provides-Extra: serve
Provides-Extra: video
Requires-Dist: numpy>=1.24
Requires-Dist: av>=14; extra == "video"
Requires-Dist: aiohttp>=3.10; extra == "serve"
Requires-Dist: vmp-edge[video]; extra == "serve"
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that makes it look as if the package had been installed from something; pip is the shell's."""
    monkeypatch.setattr(installation, "_pip", lambda: "pip install")

    def install(direct_url):
        package = tmp_path / "site-packages" / "vmp_edge"
        information = package.parent / "vmp_edge-0.1.0.dist-info"
        information.mkdir(parents=True)
        package.mkdir()
        (information / "METADATA").write_text(METADATA)
        if direct_url is not None:
            (information / "direct_url.json").write_text(json.dumps(direct_url))
        monkeypatch.setattr(installation, "PACKAGE", package)

    return install


def make_checkout(folder):
    for name in (*SIBLINGS, "vmp_edge"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "pyproject.toml").touch()
    return folder


def test_a_checkout_is_installed_where_it_lies(tmp_path, monkeypatch):
    folder = make_checkout(tmp_path / "my checkout")
    monkeypatch.setattr(installation, "PACKAGE", folder / "vmp_edge")
    monkeypatch.setattr(installation, "_pip", lambda: "pip install")
    assert shlex.split(install_command("serve")) == ["pip", "install", "-e", f"{folder}[serve]"]
    assert shlex.split(install_command()) == ["pip", "install", "-e", str(folder)]
    monkeypatch.chdir(folder)
    assert install_command("compile,tvm") == "pip install -e '.[compile,tvm]'"


def test_a_folder_and_a_wheel_that_are_still_there_are_named(installed, tmp_path):
    folder = make_checkout(tmp_path / "source")
    installed({"url": folder.as_uri(), "dir_info": {}})
    assert shlex.split(install_command("serve"))[-1] == f"{folder}[serve]"


def test_a_wheel_that_is_still_there_is_named(installed, tmp_path):
    wheel = tmp_path / "dist" / "vmp_edge-0.1.0-py3-none-linux_x86_64.whl"
    wheel.parent.mkdir()
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert shlex.split(install_command("serve"))[-1] == f"{wheel}[serve]"


@pytest.mark.parametrize(
    "direct_url",
    [
        None,
        {"url": "file:///no/such/vmp_edge-0.1.0-py3-none-linux_x86_64.whl", "archive_info": {}},
        {"url": "file:///no/such/checkout", "dir_info": {}},
        ["not", "an", "object"],
    ],
    ids=["index", "wheel gone", "folder gone", "damaged"],
)
def test_without_a_place_to_install_from_the_requirements_are_named(installed, direct_url):
    """No package index has this package, and somebody else could take its name there."""
    installed(direct_url)
    assert shlex.split(install_command("serve")) == ["pip", "install", "aiohttp>=3.10", "av>=14"]
    assert shlex.split(install_command("video,serve")) == ["pip", "install", "av>=14", "aiohttp>=3.10"]


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        (
            {
                "url": "https://git.example/vmp-edge.git",
                "vcs_info": {"vcs": "git", "commit_id": "0123abc", "requested_revision": "main"},
            },
            "vmp-edge[serve] @ git+https://git.example/vmp-edge.git@main",
        ),
        (
            {"url": "https://git.example/vmp-edge.git", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}},
            "vmp-edge[serve] @ git+https://git.example/vmp-edge.git@0123abc",
        ),
        (
            {"url": "https://files.example/vmp_edge-0.1.0-py3-none-any.whl", "archive_info": {}},
            "vmp-edge[serve] @ https://files.example/vmp_edge-0.1.0-py3-none-any.whl",
        ),
    ],
    ids=["git with a branch", "git", "a wheel on a server"],
)
def test_a_repository_or_a_server_is_named(installed, direct_url, expected):
    installed(direct_url)
    assert shlex.split(install_command("serve"))[-1] == expected


def test_the_pip_of_another_python_is_not_named(tmp_path, monkeypatch):
    (tmp_path / "pip").write_text("#!/bin/sh\n")
    (tmp_path / "pip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir("/")
    assert install_command().startswith(f"{shlex.quote(sys.executable)} -m pip install ")
    monkeypatch.setattr(installation.sysconfig, "get_path", lambda name: str(tmp_path))
    assert install_command().startswith("pip install ")


def test_uv_installs_where_there_is_no_pip(tmp_path, monkeypatch):
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir("/")
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: None)
    assert install_command().startswith(f"uv pip install --python {shlex.quote(sys.executable)} ")


def test_every_module_that_may_be_missing_belongs_to_an_extra():
    declared = Path(__file__).parents[1].joinpath("pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in declared for extra in set(installation.EXTRAS.values()) - {""})
