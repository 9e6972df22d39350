"""Lowering to ONNX: standard operators alone, static shapes, the scan as one Scan operator or as plain operations."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import warnings
from typing import TYPE_CHECKING, Any

from vmp_edge.bundle.writing import Staging
from vmp_edge.calibration import quantisation
from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.ops.chunked import Form

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
# What torch.onnx writes without converting; nothing newer is needed. (CausalConvWithState comes with 27, which
# ONNX Runtime 1.31 does not have; it goes up to 26.)
OPSET = 23
RATES = ("Expand", "Concat")  # what `chunked` does to the rates of both directions
NAMES = (["frames"], ["logits"])
NAMES_APART = ((["frames"], ["tokens"]), (["tokens"], ["logits"]))  # of the embedding, and of what is left
INSTALL_HINT = "run: pip install 'vmp-edge[compile,onnxruntime]'"


def lower(exported: Exported, staging: Staging, target: Target, precision: str) -> Lowered:
    """Write ``model.onnx`` into a bundle.

    Args:
        exported: The model.
        staging: the bundle that is being made.
        target: the target, whose `scan` says how the scans are written.
        precision: one of the target's.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime, or a delegate's toolchain, is not installed.
        UsageError: the program is quantised and the precision is not, or the other way round.
        BuildError: the model does not pass ONNX's checker, or the delegate does not take it whole.
    """
    if target.delegate is not None:
        return delegates.lower(exported, staging, target, precision, PROGRAM)
    require(("onnx", "onnxscript", "onnxruntime"), INSTALL_HINT)
    return write(exported, staging, target, precision)


def write(
    exported: Exported, staging: Staging, target: Target, precision: str, readers: tuple[str, ...] = ()
) -> Lowered:
    """As `lower`; `readers` are distributions whose versions the manifest gives, too."""
    program, names, form = in_precision(exported.unprepared, precision), NAMES, Form(**target.scan)
    if exported.embedding is not None:
        of_embedding, names = NAMES_APART
        embedding = in_precision(exported.embedding, precision, check=False)
        staging.add(EMBEDDING, to_onnx(embedding, form, of_embedding).SerializeToString())
    staging.add(PROGRAM, to_onnx(program, form, names).SerializeToString())
    tools = {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript", *readers)}
    return Lowered(PROGRAM, tools, embedding=EMBEDDING if exported.embedding is not None else None)


def in_precision(program: ExportedProgram, precision: str, check: bool = True) -> ExportedProgram:
    """A program of `graph.export` in a precision, made of what ONNX has words for.

    Args:
        program: the program, quantised if the precision is.
        precision: of the bundle.
        check: whether it must be of the precision; an embedding by itself may be left in float by the recipe.

    Raises:
        UsageError: the program is quantised and the precision is not, or the other way round.
    """
    if check:
        pt2e.check(program, precision)
    if precision == "fp16":
        return graph.in_float16(program, quantisation.load(precision).stays)
    return qdq.with_fixed_ranges(program) if precisions.find(precision).by_recipe else program


def to_onnx(program: ExportedProgram, form: Form, names: tuple[list[str], list[str]] = NAMES) -> Any:
    """An `onnx.ModelProto`, checked, of a program of `graph.export`.

    Args:
        program: from ``frames`` (T / tubelet, tubelet * 3, H, W) to ``logits`` (1, classes).
        form: how its scans are written.
        names: of inputs and outputs.

    Raises:
        BuildError: the model does not pass ONNX's checker.
    """
    import onnx
    import onnx_ir
    import torch

    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the libraries: nothing that a user could mend
        plain = graph.with_plain_operations(program, form)
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
    """What a reader would do by hand; the exporter's own optimiser takes minutes and ONNX Runtime repeats its work."""
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    common.InlinePass()(model)
    # of any size: OpenVINO takes a scan's rates into the body only as a constant
    fold_constants(model, should_fold=lambda node: node.op_type in RATES or None)
    for simplify in (
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        simplify(model)


def require(names: tuple[str, ...], hint: str) -> None:
    """Import modules, or raise a `MissingDependencyError` that ends with `hint`."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingDependencyError(f"lowering to ONNX needs {error.name or name}; {hint}") from error


def check(target: Target, precision: str) -> None:
    """Check that the libraries are installed that `lower` needs for a target.

    Raises:
        MissingDependencyError: One of them, or a delegate's toolchain, is missing.
    """
    if target.delegate is not None:
        delegates.check(target)
    else:
        require(("onnx", "onnxscript", "onnxruntime"), INSTALL_HINT)


LOWERING = Lowering(lower, check)
