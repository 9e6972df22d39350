"""Run an exported program by PyTorch, ExecuTorch or TVM, without building a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cases import Case, frames
from numpy.typing import NDArray

from vmp_edge.calibration.decoding import Video
from vmp_edge.compile import target
from vmp_edge.compile.lowerings import executorch
from vmp_edge.compile.lowerings.tvm import lowering as tvm
from vmp_edge.runtimes.executorch.engine import ExecuTorchEngine
from vmp_edge.runtimes.executorch.library import LIBRARY, build_library
from vmp_edge.runtimes.tvm.engine import TvmEngine

Run = Callable[[Video], NDArray[np.float32]]


def in_pytorch(case: Case, program: Any, *_: Any) -> Run:
    """Let PyTorch run the program."""
    module = program.module(check_guards=False)
    return lambda video: module(frames(case, video)).numpy()


def in_executorch(case: Case, program: Any, precision: str, folder: Path) -> Run:
    """Let ExecuTorch run the program. The engine reads its file, which is written to the folder, at once."""
    (folder / LIBRARY).write_bytes(build_library().read_bytes())
    (folder / "model.pte").write_bytes(executorch.to_executorch(program).buffer)
    return ExecuTorchEngine(as_bundle(case, folder, "model.pte")).run


def in_tvm(case: Case, program: Any, precision: str, folder: Path) -> Run:
    """Let TVM run the program. The engine reads its file, which is written to the folder, at once."""
    tvm.to_library(program, tvm.resolve(target.load("host"), precision), folder / "model.so")
    return TvmEngine(as_bundle(case, folder, "model.so"), threads=1).run


ENGINES = {"torch": in_pytorch, "executorch": in_executorch, "tvm": in_tvm}


def as_bundle(case: Case, folder: Path, program: str) -> Any:
    """Return an object with those parts of a bundle that the engines use."""
    options = case.model.options
    manifest = SimpleNamespace(
        program=program,
        model=vars(options),
        labels=range(options.num_classes),
        outputs=options.num_classes,
        frames=options.num_frames,
        image_size=options.image_size,
        cpu_features=(),
        gpu={},
    )
    return SimpleNamespace(path=folder, program=folder / program, manifest=manifest, embedding=None)
