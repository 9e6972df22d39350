"""Examine a device: which parts that bundles need are present, and which are missing (`vmp-edge doctor`)."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from . import __version__, engines
from .bundle.reading import Bundle
from .errors import MissingDependencyError, VmpError
from .installation import PACKAGE, install_command
from .machine import ANY_MACHINE, cpu_model, host_machine, missing_cpu_features, usable_cpu_count
from .parts import version
from .trial import Attempt, Outcome

CAMERAS = Path("/dev")
DISTRIBUTIONS = ("numpy", "opencv-python-headless", "pyyaml", "apache-tvm", "apache-tvm-ffi", "executorch", "torch")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: The part that was looked for.
        found: True if the part is present, False if it is missing, None if nothing needs it.
        text: What the part is, or how to get it if it is missing.
    """

    subject: str
    found: bool | None
    text: str


def examine_machine() -> list[Finding]:
    """Describe this machine.

    Every `found` is None: without a bundle, nothing is needed.
    """
    python = f"Python {platform.python_version()} ({sys.executable})"
    findings = [
        Finding("vmp-edge", None, f"{__version__} in {PACKAGE}"),
        Finding("machine", None, f"{platform.system()} {host_machine()}, {python}"),
        Finding("CPU", None, f"{cpu_model()}, {usable_cpu_count()} usable cores"),
    ]
    for name in DISTRIBUTIONS:
        findings.append(Finding(name, None, version(name) or "not installed"))
    findings.append(_gpu())
    cameras = sorted(path.name for path in CAMERAS.glob("video*"))
    findings.append(Finding("cameras", None, ", ".join(cameras) or "none in /dev"))
    gstreamer = shutil.which("gst-launch-1.0")
    findings.append(Finding("GStreamer", None, gstreamer or "not installed (Debian: apt install gstreamer1.0-tools)"))
    return findings


def examine_bundle(bundle: Bundle) -> list[Finding]:
    """Check what a bundle needs of this machine, and load the bundle if nothing is missing.

    Args:
        bundle: An opened bundle, whose files are thus intact. It may be for another machine.
    """
    manifest = bundle.manifest
    findings = [Finding("files", True, f"{len(manifest.files)}, all intact")]
    if manifest.machine not in (ANY_MACHINE, host_machine()):
        problem = f"is for {manifest.machine}, this machine is {host_machine()}: build it for this machine's target"
        libraries = [Finding(name, None, "needed on the device") for name in manifest.libraries]
        return [*findings, Finding("machine", False, problem), *libraries]
    findings.append(Finding("machine", True, manifest.machine))
    if manifest.cpu_features:
        missing = missing_cpu_features(manifest.cpu_features)
        text = f"lacks {', '.join(missing)}: build for another target" if missing else ", ".join(manifest.cpu_features)
        findings.append(Finding("CPU", not missing, text))
    findings += [_library(name) for name in manifest.libraries]
    if all(finding.found for finding in findings):
        findings.append(_engine(bundle))
    return findings


def _gpu() -> Finding:
    """Describe the GPU, or say what is missing to use one."""
    from vmp_edge.runtimes.tvm.cuda import find_gpu

    try:
        gpu = find_gpu()
    except (MissingDependencyError, AttributeError) as error:  # AttributeError: a driver without a function
        return Finding("GPU", None, str(error))
    driver = ".".join(map(str, gpu.driver))
    return Finding("GPU", None, f"{gpu.name}, sm_{gpu.architecture}, {gpu.processors} SMs, driver of CUDA {driver}")


def _library(name: str) -> Finding:
    """Look for a library in the folders of TVM's Python packages and where the system looks for libraries."""
    for package in ("tvm_ffi", "tvm"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / "lib" / name).is_file():
                return Finding(name, True, f"{path}")
    try:
        ctypes.CDLL(name)
    except OSError:
        return Finding(name, False, _how_to_get(name))
    return Finding(name, True, "installed in the system")


def _how_to_get(library: str) -> str:
    """Say what to do about a library that is not there."""
    if library.startswith("libtvm_"):
        wheels = " (TVM's wheels have it for x86-64 and Arm64 Linux)" if "cuda" in library else ""
        return f"missing; run: {install_command('tvm')}{wheels}"
    if library == "libcuda.so.1":
        return "missing: install NVIDIA's driver; on Jetson, JetPack brings it"
    return "not found: install it, or put its folder into LD_LIBRARY_PATH"


def _engine(bundle: Bundle) -> Finding:
    """Try to load the bundle's program into its engine, in a process of its own if the engine is one of ours."""
    name = bundle.manifest.engine
    if name in engines.ENGINES:
        outcome = Attempt("vmp_edge.doctor:load_program", str(bundle.path)).outcome()
    else:
        outcome = Outcome(True, "")
        try:
            engines.create(bundle).close()
        except VmpError as error:
            outcome = Outcome(False, " ".join(str(error).split()))
    return Finding(f"engine {name}", outcome.works, "loads the program" if outcome.works else outcome.text)


def load_program(path: str) -> None:
    """Load a bundle into its engine, and release it."""
    engines.create(Bundle.open(path)).close()
