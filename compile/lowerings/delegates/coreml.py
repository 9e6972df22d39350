"""The delegate for Apple's Neural Engine, by Core ML: an ML program in float16, made on Linux by coremltools."""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from vmp_edge.errors import BuildError

from ...emulation.mil import OPERATIONS, Interpreter
from ...target import Target
from . import Delegate, Delegated, lower_whole, quiet, require

MODULES = ("coremltools", "executorch.backends.apple.coreml.partition")
# This pass of coremltools 9.0 fails where a scalar is added to a linear layer's output, as under the root of each norm.
BROKEN_PASS = "common::fuse_linear_bias"


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """Compile a program to an ML program that is the whole model.

    Args:
        program: A program of ordinary operations.
        target: The target, with ``deployment`` (for example ``iOS17``) among its `Target.options`.
        precision: ``fp16``.

    Raises:
        MissingDependencyError: coremltools is not installed.
        BuildError: coremltools cannot compile the model, or the ML program has something that it should not have.
    """
    require("coreml", *MODULES)
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    specs = CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=coremltools.target[target.options["deployment"]],
        compute_precision=coremltools.precision.FLOAT16,
        pass_names=[name for name in coremltools.PassPipeline.DEFAULT.passes if name != BROKEN_PASS],
    )
    edge, lowered = lower_whole(program, CoreMLPartitioner(compile_specs=specs), "Core ML")
    with quiet():
        interpreter = read(lowered.processed_bytes)
    check(interpreter.function)
    tools = ("torch", "executorch", "coremltools")
    emulator = "NumPy, the ML program operation by operation in float16"
    return Delegated(edge.to_executorch().buffer, tools, emulator, interpreter.run)


def read(package: bytes) -> Interpreter:
    """Read the ML program in a package that ExecuTorch has flattened."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import MLModel
    from executorch.backends.apple.coreml import executorchcoreml

    with tempfile.TemporaryDirectory() as folder:
        executorchcoreml.unflatten_directory_contents(package, folder)
        model = MLModel(str(Path(folder) / "lowered_module" / "model.mlpackage"), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, model.weights_dir)
    return Interpreter(next(iter(program.functions.values())))


def count(function: Any) -> Counter[str]:
    """Count how often each operation is in an ML program, constants excepted."""
    return Counter(operation.op_type for operation in function.operations if operation.op_type != "const")


def check(function: Any) -> None:
    """Check that an ML program is float16 throughout, has static shapes, and has arithmetic and copies alone.

    Args:
        function: coremltools' ``main``.

    Raises:
        BuildError: It has something else; the text names it.
    """
    inputs = set(function.inputs.values())
    for operation in function.operations:
        kind = operation.op_type
        if kind == "const" or (kind == "cast" and operation.x in inputs):
            continue
        if kind not in OPERATIONS:
            raise BuildError(f"the ML program has an operation {kind}, which the Neural Engine may leave to the CPU")
        for output in operation.outputs:
            name = output.dtype.__name__
            if name != "fp16":
                raise BuildError(f"the ML program computes {operation.name} ({kind}) in {name}, not in float16")
            if not all(isinstance(size, int) for size in output.shape):
                raise BuildError(f"the ML program's {operation.name} ({kind}) has a shape that is not static")


DELEGATE = Delegate(lower, partial(require, "coreml", *MODULES))
