"""The lowering to ONNX: standard operators alone, static shapes, each scan as one Scan operator or in plain operations.

ONNX Runtime and OpenVINO read the model as it is; `delegates.onnx_qnn` compiles it for Qualcomm's HTP.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import warnings
from typing import TYPE_CHECKING, Any

from vmp_edge.bundle.writing import Staging
from vmp_edge.calibration import quantisation
from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.installation import install_command
from vmp_edge.models.stream_state import program_states
from vmp_edge.ops.chunked import Form
from vmp_edge.progress import part

from ... import graph
from ... import precision as precisions
from ...graph import pt2e
from ...lowering import Exported, Lowered, Lowering
from ...target import Target
from .. import delegates
from . import qdq

if TYPE_CHECKING:
    from torch.export import ExportedProgram

PROGRAM, EMBEDDING = "model.onnx", "embedding.onnx"
# The opset that torch.onnx writes without converting; nothing newer is needed. (CausalConvWithState comes with 27;
# ONNX Runtime 1.31 goes up to 26.)
OPSET = 23
RATE_OPERATORS = ("Expand", "Concat")  # the operators that `chunked` applies to the rates of both directions
NAMES = (["frames"], ["logits"])  # inputs and outputs
AFTER = "next-"  # what the name of a state begins with where it goes out
NAMES_APART = ((["frames"], ["tokens"]), (["tokens"], ["logits"]))  # the same of an embedding, and of the rest
EXTRAS = "compile,onnxruntime"  # the extras that install what this lowering imports


def lower(exported: Exported, staging: Staging, target: Target, precision: str) -> Lowered:
    """Write ``model.onnx`` into a bundle.

    Args:
        exported: The model.
        staging: The bundle that is being made.
        target: The target, whose `scan` says how the scans are written.
        precision: One of the target's precisions.

    Raises:
        MissingDependencyError: onnx, onnxscript, onnxruntime, or the delegate's toolchain is not installed.
        UsageError: The program is quantised and the precision is not, or the other way round.
        BuildError: The model does not pass ONNX's checker, or the delegate does not take it whole.
    """
    if target.delegate is not None:
        return delegates.lower(exported, staging, target, precision, PROGRAM)
    require(("onnx", "onnxscript", "onnxruntime"), EXTRAS)
    return write(exported, staging, target, precision)


def write(
    exported: Exported, staging: Staging, target: Target, precision: str, readers: tuple[str, ...] = ()
) -> Lowered:
    """Write the model like `lower`. `readers` names further distributions whose versions go into the manifest."""
    program, names, form = in_precision(exported.unprepared, precision), NAMES, Form(**target.scan)
    if exported.model.options.causal:
        states = program_states(exported.model.options)
        names = [*NAMES[0], *states], [*NAMES[1], *(AFTER + name for name in states)]
    if exported.embedding is not None:
        embedding_names, names = NAMES_APART
        embedding = in_precision(exported.embedding, precision, check=False)
        staging.add(EMBEDDING, to_onnx(embedding, form, embedding_names).SerializeToString())
    staging.add(PROGRAM, to_onnx(program, form, names).SerializeToString())
    tools = {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript", *readers)}
    return Lowered(PROGRAM, tools, embedding=EMBEDDING if exported.embedding is not None else None)


def in_precision(program: ExportedProgram, precision: str, check: bool = True) -> ExportedProgram:
    """Return a program of `graph.export` in a precision, in operations that ONNX has.

    Args:
        program: The program, quantised if the precision is.
        precision: The bundle's precision.
        check: True if the program must be of the precision; a recipe may leave an embedding by itself in float.

    Raises:
        UsageError: The program is quantised and the precision is not, or the other way round.
    """
    if check:
        pt2e.check(program, precision)
    if precision == "fp16":
        return graph.in_float16(program, quantisation.load(precision).stays)
    return qdq.with_fixed_ranges(program) if precisions.find(precision).by_recipe else program


def to_onnx(program: ExportedProgram, form: Form, names: tuple[list[str], list[str]] = NAMES) -> Any:
    """Convert a program of `graph.export` to an `onnx.ModelProto`, and check it.

    Args:
        program: A program, for example from ``frames`` (T / tubelet, tubelet * 3, H, W) to ``logits`` (1, classes).
        form: The form in which its scans are written.
        names: The names of the inputs and of the outputs.

    Raises:
        BuildError: The model does not pass ONNX's checker.
    """
    import onnx
    import onnx_ir
    import torch

    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the libraries, which no user can mend
        plain = graph.with_plain_operations(program, form)
        with part("convert"):
            exported = torch.onnx.export(
                plain, dynamo=True, opset_version=OPSET, input_names=names[0], output_names=names[1],
                optimize=False, verbose=False,
            )  # fmt: skip
        assert exported is not None
        _simplify(exported.model)
    model = onnx_ir.to_proto(exported.model)
    try:
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"ONNX's checker refuses the model: {error}") from error


def _simplify(model: Any) -> None:
    """Simplify the model a little; the exporter's own optimiser takes minutes, and ONNX Runtime repeats its work."""
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    common.InlinePass()(model)
    # rates of any size, as OpenVINO takes a scan's rates into the body only if they are constants
    fold_constants(model, should_fold=lambda node: node.op_type in RATE_OPERATORS or None)
    for simplify in (
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        simplify(model)


def require(names: tuple[str, ...], extras: str) -> None:
    """Import modules, or raise a `MissingDependencyError` that says how to install the extras that bring them."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            command = install_command(extras)
            raise MissingDependencyError(f"lowering to ONNX needs {error.name or name}; run: {command}") from error


def check(target: Target, precision: str) -> None:
    """Check that the libraries are installed that `lower` needs for a target.

    Raises:
        MissingDependencyError: One of them, or a delegate's toolchain, is missing.
    """
    if target.delegate is not None:
        delegates.check(target)
    else:
        require(("onnx", "onnxscript", "onnxruntime"), EXTRAS)


LOWERING = Lowering(lower, check, stems=True)
