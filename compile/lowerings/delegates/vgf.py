"""Arm's GPUs with neural accelerators, and others with the ML extensions for Vulkan, by a VGF file in float32."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from vmp_edge.errors import BuildError, MissingDependencyError

from ...target import Target
from . import Array, Delegate, Delegated, lower_whole, require

EXTRA = "vgf"
MODULES = ("model_converter", "tosa_serializer", "executorch.backends.arm.vgf")
EMULATOR = "Arm's ML Emulation Layer for Vulkan"
DRIVER = "lvp_icd"  # Mesa's lavapipe: Vulkan on the CPU
LAYERS = ("Graph", "Tensor")  # of the emulation, in this order


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """A VGF file that is the whole model.

    Args:
        program: of ordinary operations.
        target: the target.
        precision: fp32.

    Raises:
        MissingDependencyError: Arm's converter is not installed.
        BuildError: it cannot compile the model, or not all of it.
    """
    require(EXTRA, *MODULES)
    from executorch.backends.arm.vgf import VgfCompileSpec, VgfPartitioner

    os.environ.setdefault("MODEL_CONVERTER_PATH", str(binary("model_converter", "model-converter")))
    edge, lowered = lower_whole(program, VgfPartitioner(VgfCompileSpec()), "VGF")
    tools = ("torch", "executorch", "tosa-tools", "ai_ml_sdk_model_converter")
    (output,) = program.graph_module.graph.output_node().args[0]  # type: ignore[misc]
    scenario = Scenario(lowered.processed_bytes, tuple(output.meta["val"].shape))
    return Delegated(edge.to_executorch().buffer, tools, f"{EMULATOR}, on lavapipe", scenario.run, environment)


def binary(package: str, name: str) -> Path:
    """A program that lies inside of one of Arm's wheels."""
    return Path(str(importlib.import_module(package).__file__)).parent / "binaries" / "bin" / name


def environment() -> dict[str, str]:
    """For programs that shall see lavapipe below Arm's emulation of graphs and tensors, and no other driver.

    Debian 12's loader stacks layers in the order in which it finds them, not in the one that is asked for: `Scenario`
    gives each a folder in VK_LAYER_PATH.

    Raises:
        MissingDependencyError: one of them is not installed.
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
    """Where the emulation's layers are."""
    return Path(str(importlib.import_module("emulation_layer").__file__)).parent / "deploy"


def _data_folders() -> list[Path]:
    found = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [Path(folder) for folder in found.split(":")]


class Scenario:
    """A VGF file with one input and one output, run by Arm's Scenario Runner.

    Args:
        vgf: the file.
        shape: of its output.
    """

    def __init__(self, vgf: bytes, shape: tuple[int, ...]) -> None:
        self.vgf, self.shape = vgf, shape

    def run(self, frames: Array) -> Array:
        """Output of an input, both float32.

        Raises:
            MissingDependencyError: as `environment`.
            BuildError: it fails; the text ends with what it said last.
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
            done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
            if done.returncode or not (folder / "output.npy").exists():
                said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
                raise BuildError(f"the Scenario Runner cannot run the VGF file: {said[-1][:300]}")
            output: Array = np.load(folder / "output.npy")
        return output.reshape(self.shape)

    def _commands(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """What the Scenario Runner shall do."""
        tensors = {"input": (shape, {"src": "input.npy"}), "output": (self.shape, {"dst": "output.npy"})}
        access = {"input": "readonly", "output": "writeonly"}
        resources: list[dict[str, Any]] = [{"graph": {"uid": "model", "src": "model.vgf"}}]
        for name, (dims, file) in tensors.items():
            described = {"dims": list(dims), "format": "VK_FORMAT_R32_SFLOAT", "shader_access": access[name]}
            resources.append({"tensor": {"uid": name, **described, **file}})
        bindings = [{"set": 0, "id": place, "resource_ref": name} for place, name in enumerate(tensors)]
        return {
            "commands": [{"dispatch_graph": {"bindings": bindings, "graph_ref": "model"}}],
            "resources": resources,
        }


DELEGATE = Delegate(lower, partial(require, EXTRA, *MODULES))
