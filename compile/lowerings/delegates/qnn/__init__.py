"""The delegate for Qualcomm's HTP by ExecuTorch, compiled with the libraries of the onnxruntime-qnn wheel."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from vmp_edge.calibration.quantisation import Recipe, range_options
from vmp_edge.ops.chunked import Form

from .... import graph
from ....emulation.qnn import EMULATOR
from ....emulation.qnn import ExecuTorchProgram as Program
from ....target import Target
from .. import Delegate, Delegated, check_whole, quiet, require, shares_scans
from ..htp import with_accurate_operations, with_bounded_exponents
from . import shared, toolchain

__all__ = ["DELEGATE", "Program", "load_toolchain", "lower", "quantiser"]
TOOLS = ("torch", "executorch", "torchao", "onnxruntime-qnn")
BACKEND = "executorch.backends.qualcomm"


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """Compile a program to a ``.pte`` file that is one context binary for a SoC, or several if it shares scans.

    Args:
        program: A program of ordinary operations, apart from the scans that `shared` compiles once; in 16a8w,
            quantised by `quantiser`.
        target: The target, with the SoC to compile for.
        precision: ``fp16`` or ``16a8w``.

    Raises:
        MissingDependencyError: onnxruntime-qnn, or a C compiler, is not there.
        BuildError: QNN cannot compile the model, or leaves something to the CPU.
    """
    load_toolchain()
    from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
    from executorch.backends.qualcomm.utils import utils

    assert target.soc is not None
    specs = utils.generate_qnn_executorch_compiler_spec(
        soc_model=QcomChipset(target.socs[target.soc].model),
        backend_options=utils.generate_htp_compiler_spec(use_fp16=precision == "fp16"),
    )

    def compile_whole(module: nn.Module, inputs: Any) -> tuple[Any, Any]:
        return check_whole(lambda: utils.to_edge_transform_and_lower_to_qnn(module, inputs, specs), "QNN")

    def compile_part(part: nn.Module, inputs: Any) -> tuple[Any, Any]:
        with quiet():
            exported = torch.export.export(part, inputs, strict=False)
            plain = with_accurate_operations(graph.with_plain_operations(exported, Form(**target.scan)))
            plain = with_bounded_exponents(plain)
        return compile_whole(plain.module(check_guards=False), inputs)

    if shares_scans(program, target, precision):
        edge = shared.lower(program, compile_part)
    else:
        program = with_bounded_exponents(program) if precision == "fp16" else program
        edge, _ = compile_whole(program.module(check_guards=False), program.example_inputs[0])
    with quiet():
        content = bytes(edge.to_executorch().buffer)
    return Delegated(content, TOOLS, EMULATOR, Program(content).run)


def quantiser(target: Target, recipe: Recipe) -> Any:
    """Return Qualcomm's quantiser, for 16-bit activations with the recipe's ranges and 8-bit weights by channel.

    Raises:
        MissingDependencyError: onnxruntime-qnn, or a C compiler, is not there.
    """
    load_toolchain()
    from executorch.backends.qualcomm.quantizer.quantizer import QnnQuantizer, QuantDtype

    from vmp_edge.calibration.observers import RangeObserver

    class Observer(RangeObserver):  # a class, as Qualcomm's quantiser passes arguments of its own
        def __init__(self, **options: Any) -> None:
            super().__init__(**range_options(recipe), **options)

    qnn_quantiser = QnnQuantizer()
    # its own observers take a moving average, which hardly leaves the first clip's ranges: 9.5 dB instead of 39.4
    qnn_quantiser.set_default_quant_config(
        QuantDtype.use_16a8w, is_linear_per_channel=True, is_conv_per_channel=True, act_observer=Observer
    )
    return qnn_quantiser


def load_toolchain() -> None:
    """Load Qualcomm's compiler and emulator into this process, in which they stay.

    Raises:
        MissingDependencyError: onnxruntime-qnn is not installed or not for this machine, or there is no C compiler.
        BuildError: The C compiler failed, or another QNN is loaded.
    """
    require("qnn", "onnxruntime_qnn", f"{BACKEND}.utils.utils", f"{BACKEND}.quantizer.quantizer")
    toolchain.load()


DELEGATE = Delegate(lower, load_toolchain, rewrite=with_accurate_operations, quantiser=quantiser)
