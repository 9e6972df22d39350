"""Run a VGF file with Arm's Scenario Runner, on Arm's emulation of the ML extensions for Vulkan and Mesa's lavapipe."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vmp_edge.errors import BuildError, MissingDependencyError

from ..lowerings.delegates import Array, require

EXTRA = "vgf"
EMULATOR = "Arm's ML Emulation Layer for Vulkan, on lavapipe"
DRIVER = "lvp_icd"  # Mesa's lavapipe: Vulkan on the CPU
LAYERS = ("Graph", "Tensor")  # the layers of the emulation, in their order


def binary(package: str, name: str) -> Path:
    """Return the path of a program inside one of Arm's wheels."""
    return Path(str(importlib.import_module(package).__file__)).parent / "binaries" / "bin" / name


def environment() -> dict[str, str]:
    """Return the environment of a program that sees lavapipe below Arm's emulation, and no other driver.

    Debian 12's loader stacks layers in the order in which it finds them, not in the one that it is asked for: that is
    why `Scenario` gives each layer a folder in VK_LAYER_PATH.

    Raises:
        MissingDependencyError: The Scenario Runner, the emulation or lavapipe is not installed.
    """
    require(EXTRA, "scenario_runner", "emulation_layer")
    drivers = [path for folder in _data_folders() for path in (folder / "vulkan/icd.d").glob(f"{DRIVER}*.json")]
    if not drivers:
        raise MissingDependencyError("emulating Vulkan needs lavapipe (Debian: apt install mesa-vulkan-drivers)")
    libraries = [str(emulation() / "lib"), os.environ.get("LD_LIBRARY_PATH")]
    return {
        **os.environ,
        "VK_ICD_FILENAMES": str(drivers[0]),
        "VK_INSTANCE_LAYERS": os.pathsep.join(f"VK_LAYER_ML_{name}_Emulation" for name in LAYERS),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }


def emulation() -> Path:
    """Return the folder of the emulation's layers."""
    return Path(str(importlib.import_module("emulation_layer").__file__)).parent / "deploy"


def _data_folders() -> list[Path]:
    folders = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [Path(folder) for folder in folders.split(":")]


class Scenario:
    """A VGF file with one input and one output, run by Arm's Scenario Runner.

    Args:
        vgf: The content of the file.
        shape: The shape of the output.
    """

    def __init__(self, vgf: bytes, shape: tuple[int, ...]) -> None:
        self.vgf, self.shape = vgf, shape

    def run(self, frames: Array) -> Array:
        """Return the output for an input, both float32.

        Raises:
            MissingDependencyError: The Scenario Runner, the emulation or lavapipe is not installed.
            BuildError: The Scenario Runner fails; the text ends with the last line that it printed.
        """
        variables = environment()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            variables["VK_LAYER_PATH"] = os.pathsep.join(str(folder / layer) for layer in LAYERS)
            for layer in LAYERS:
                (folder / layer).mkdir()
                shutil.copy(emulation() / f"share/vulkan/explicit_layer.d/VkLayer_{layer}.json", folder / layer)
            (folder / "model.vgf").write_bytes(self.vgf)
            np.save(folder / "input.npy", np.ascontiguousarray(frames, np.float32))
            (folder / "scenario.json").write_text(json.dumps(self._commands(frames.shape)))
            command = [str(binary("scenario_runner", "scenario-runner")), "--scenario", "scenario.json"]
            process = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
            if process.returncode or not (folder / "output.npy").exists():
                lines = (process.stderr or process.stdout).strip().splitlines() or [f"exit code {process.returncode}"]
                raise BuildError(f"the Scenario Runner cannot run the VGF file: {lines[-1][:300]}")
            output: Array = np.load(folder / "output.npy")
        return output.reshape(self.shape)

    def _commands(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the scenario: run the file on an input of this shape, and save the output."""
        tensors = {"input": (shape, {"src": "input.npy"}), "output": (self.shape, {"dst": "output.npy"})}
        access = {"input": "readonly", "output": "writeonly"}
        resources: list[dict[str, Any]] = [{"graph": {"uid": "model", "src": "model.vgf"}}]
        for name, (dims, file) in tensors.items():
            description = {"dims": list(dims), "format": "VK_FORMAT_R32_SFLOAT", "shader_access": access[name]}
            resources.append({"tensor": {"uid": name, **description, **file}})
        bindings = [{"set": 0, "id": place, "resource_ref": name} for place, name in enumerate(tensors)]
        return {
            "commands": [{"dispatch_graph": {"bindings": bindings, "graph_ref": "model"}}],
            "resources": resources,
        }
