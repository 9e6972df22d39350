"""How this package was installed, and what to type to install an extra of it, for messages and for the doctor."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ._checkout import checkout

if TYPE_CHECKING:
    from importlib.metadata import Distribution

NAME = "vmp-edge"
PACKAGE = Path(__file__).resolve().parent
# The extra that installs a module. The modules of "" come with the package itself.
EXTRAS = {
    "numpy": "",
    "cv2": "",
    "yaml": "",
    "torch": "compile",
    "executorch": "compile",
    "torchao": "compile",
    "onnx": "compile",
    "huggingface_hub": "compile",
    "onnxscript": "compile",
    "cmake": "compile",
    "ninja": "compile",
    "tvm": "tvm",
    "tvm_ffi": "tvm",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "coremltools": "coreml",
    "av": "video",
    "pygame": "display",
    "paho": "mqtt",
    "aiohttp": "serve",
    "jinja2": "report",
    "matplotlib": "report",
    "tqdm": "report",
    "sklearn": "train",
    "transformers": "text",
}


def install_command(extra: str = "") -> str:
    """Return the shell command that installs an extra into this Python, for error messages.

    The command fits the way in which the package itself was installed. It does not rely on a package index that has
    this package: where nothing is left of what it was installed from, the command names the extra's own requirements.

    Args:
        extra: The extra, such as `serve`, or several, such as `compile,onnxruntime`. The empty text stands for the
            package itself.
    """
    chosen = f"[{extra}]" if extra else ""
    if (folder := checkout(PACKAGE)) is not None:
        return f"{_pip()} -e {shlex.quote(_near(folder) + chosen)}"
    distribution = _distribution()
    origin = _origin(distribution) if distribution is not None else None
    if origin is not None:
        path, url = origin
        return f"{_pip()} {shlex.quote(f'{path}{chosen}' if path else f'{NAME}{chosen} @ {url}')}"
    needed = requirements(extra)
    return f"{_pip()} {' '.join(map(shlex.quote, needed)) or shlex.quote(NAME + chosen)}"


def missing_module(error: ImportError, extra: str = "") -> str | None:
    """Return one line on what to install, for a library that cannot be imported; None for any other module.

    Args:
        error: The failed import.
        extra: The extra to install if the library is one that the package itself needs.
    """
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return None
    problem = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
    return f"this needs {name}, which {problem}; run: {install_command(EXTRAS[name] or extra)}"


def other_checkout() -> Path | None:
    """Return the current folder if it is a checkout, but not the one that this package is from."""
    try:
        folder = checkout(Path.cwd() / "vmp_edge")
    except OSError:  # the folder was removed
        return None
    return None if folder is None or folder.resolve() == PACKAGE.parent else folder


def extras() -> list[str]:
    """List the extras of this package; empty if nothing says which there are."""
    return list(_declared()[0])


def requirements(extra: str) -> list[str]:
    """List what an extra, or several with commas between them, installs beyond the package itself, as pip takes it.

    An unknown extra has none. Without extras, these are the package's own requirements.
    """
    _, declared = _declared()
    found = dict.fromkeys(part for name in extra.split(",") for part in _requirements(declared, name, {name}))
    return list(found)


def _declared() -> tuple[list[str], list[tuple[str, str]]]:
    """Return the package's extras, and its requirements, each with the extra that it belongs to or an empty text."""
    folder = checkout(PACKAGE)
    if folder is not None and sys.version_info >= (3, 11):
        import tomllib

        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        optional = project["optional-dependencies"]
        lines = [("", line) for line in project["dependencies"]]
        return [*optional], lines + [(name, line) for name, part in optional.items() for line in part]
    if (distribution := _distribution()) is None:
        return [], []
    lines = []
    for text in distribution.requires or []:
        line, _, marker = text.partition(";")
        condition = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
        lines.append((condition.group(1) if condition else "", line))
    return distribution.metadata.get_all("Provides-Extra") or [], lines


def _requirements(declared: list[tuple[str, str]], extra: str, done: set[str]) -> Iterator[str]:
    """Go through an extra's requirements, and those of the extras of this package among them."""
    for line in (line.replace(" ", "") for name, line in declared if name == extra):
        own = re.fullmatch(rf"{NAME}\[([^\]]+)\].*", line)
        if own is None:
            yield line
            continue
        for name in own.group(1).split(","):
            if name not in done:
                done.add(name)
                yield from _requirements(declared, name, done)


def _distribution() -> Distribution | None:
    """Return the metadata of the installed package, or None if this package is not an installed one."""
    from importlib.metadata import Distribution

    # Those of an editable install lie elsewhere on the path, those of any other beside the package.
    places: dict[str, Any] = {} if checkout(PACKAGE) is not None else {"path": [str(PACKAGE.parent)]}
    return next(iter(Distribution.discover(name=NAME, **places)), None)


def _origin(distribution: Distribution) -> tuple[Path | None, str] | None:
    """Return the file or folder, or the URL, that the package was installed from; None if nothing is known of it.

    pip and its like write it down (PEP 610), but for packages from an index.
    """
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "")
        url, vcs = str(origin["url"]), origin.get("vcs_info")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if vcs:
        revision = vcs.get("requested_revision") or vcs.get("commit_id")
        return None, f"{vcs.get('vcs', 'git')}+{url}" + (f"@{revision}" if revision else "")
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None, url
    path = Path(unquote(parts.path))
    whole = path.is_file() or (path / "pyproject.toml").is_file()
    return (path, url) if whole else None


def _pip() -> str:
    """Return the command that installs into this Python: `pip` if the shell's is that, else one that names Python."""
    python = shlex.quote(_near(Path(sys.executable)) if sys.executable else "python3")
    found = shutil.which("pip")
    if found is not None and Path(found).parent.resolve() == Path(sysconfig.get_path("scripts")).resolve():
        return "pip install"
    if importlib.util.find_spec("pip") is None and shutil.which("uv") is not None:
        return f"uv pip install --python {python}"
    return f"{python} -m pip install"


def _near(path: Path) -> str:
    """Return a path as it is written in the current folder, if it lies there, else whole."""
    with contextlib.suppress(ValueError, OSError):
        here = Path.cwd()
        if here != here.parent:
            return str(path.relative_to(here))
    return str(path)
