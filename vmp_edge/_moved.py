"""Keep the old names of moved modules importable: importing an old name gives the module in its new place.

A finder at the end of `sys.meta_path` handles the old names, so they cost nothing until somebody imports one.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

# Old name: new name. Both are relative to `vmp_edge`.
MOVED = {
    "cameras": "stream.cameras",
    "clips": "events.clips",
    "display": "view.display",
    "governor": "stream.governor",
    "manifest": "bundle.manifest",
    "motion": "stream.motion",
    "overlay": "view.overlay",
    "recording": "view.recording",
    "ring": "stream.ring",
    "sinks": "events.sinks",
    "slots": "stream.slots",
    "smoothing": "stream.smoothing",
    "watch": "events.watch",
    "compile.converters": "compile.lowerings.tvm.converters",
    "compile.cpu": "compile.lowerings.tvm.cpu",
    "compile.cuda": "compile.lowerings.tvm.cuda",
    "compile.delegates": "compile.lowerings.delegates",
    "compile.emulator": "compile.emulation.runners",
    "compile.executorch": "compile.lowerings.executorch",
    "compile.gemm": "compile.lowerings.tvm.gemm",
    "compile.gemm_int8": "compile.lowerings.tvm.gemm_int8",
    "compile.onnx": "compile.lowerings.onnx.lowering",
    "compile.openvino": "compile.lowerings.openvino",
    "compile.pt2e": "compile.graph.pt2e",
    "compile.qdq": "compile.lowerings.onnx.qdq",
    "compile.torch": "compile.lowerings.torch",
    "compile.tuning": "compile.lowerings.tvm.tuning",
    "compile.tvm": "compile.lowerings.tvm.lowering",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the old names and loads the modules that they stand for now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "vmp_edge" or name not in MOVED:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new_name = f"vmp_edge.{MOVED[spec.name.partition('.')[2]]}"
        warnings.warn(f"{spec.name} is {new_name} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new_name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back, which the import machinery replaced.

        The module itself was executed when it was imported under its new name.
        """
        module.__spec__ = self.spec


def install() -> None:
    """Make the old names importable."""
    sys.meta_path.append(_Finder())
