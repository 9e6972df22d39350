"""Unpickle tensors and plain data, and nothing else: no name in the file is imported, no function in it is called.

PyTorch's own safe loading refuses a whole checkpoint for one `argparse.Namespace` or one NumPy number beside the
weights. This unpickler reads such objects as data without behaviour (`Foreign`). For PyTorch's functions that rebuild
tensors it has functions of its own. Of functions that are known to make plain data it keeps the arguments. It refuses
a file that calls any other function.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

# Functions and classes whose calls do nothing but make data. They are not called either: the arguments are kept.
DATA_CALLS = frozenset(
    """
    _codecs.encode argparse.Namespace builtins.bytearray builtins.bytes builtins.complex builtins.dict
    builtins.frozenset builtins.list builtins.object builtins.range builtins.set builtins.slice builtins.tuple
    collections.Counter collections.OrderedDict collections.UserDict collections.defaultdict collections.deque
    copyreg._reconstructor datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone
    decimal.Decimal fractions.Fraction numpy.dtype numpy.ndarray numpy.core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy.core.numeric._frombuffer numpy._core.multiarray._reconstruct
    numpy._core.multiarray.scalar numpy._core.numeric._frombuffer numpy.random._pickle.__bit_generator_ctor
    numpy.random._pickle.__generator_ctor numpy.random._pickle.__randomstate_ctor
    numpy.random.bit_generator.__pyx_unpickle_SeedSequence pathlib.Path pathlib.PosixPath pathlib.PurePath
    pathlib.PurePosixPath pathlib.PureWindowsPath pathlib.WindowsPath pathlib._local.PosixPath
    pathlib._local.WindowsPath torch._utils._rebuild_device_tensor_from_cpu_tensor
    torch._utils._rebuild_device_tensor_from_numpy torch._utils._rebuild_meta_tensor_no_storage
    torch._utils._rebuild_nested_tensor torch._utils._rebuild_qtensor torch._utils._rebuild_sparse_tensor
    torch._utils._rebuild_wrapper_subclass torch.device torch.serialization._get_layout types.SimpleNamespace
    uuid.UUID
    """.split()  # noqa: SIM905 - so many names are easier to read as a text
)
OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names, which pickle's protocol 2 writes


@dataclass(frozen=True)
class Name:
    """The name of a function or a class in a pickle. It was not imported."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """The name with its module."""
        path = f"{OLD_MODULES.get(self.module, self.module)}.{self.name}"
        return path if path.isprintable() else ascii(path)

    @property
    def __name__(self) -> str:
        """The name alone, which PyTorch asks for when it reads old files."""
        return self.name


class Foreign(dict[Any, Any]):
    """An object of a class that was not imported, as data: entries and elements that were put into it, and its state.

    Args:
        kind: The name of its class, or of the function that would have made it.
        arguments: The arguments of the call that would have made it.
    """

    def __init__(self, kind: str, arguments: Any = ()) -> None:
        super().__init__()
        self.kind, self.arguments = kind, arguments
        self.state: Any = None
        self.elements: list[Any] = []

    def append(self, element: Any) -> None:
        """Keep an element, as of a list."""
        self.elements.append(element)

    def extend(self, elements: Iterable[Any]) -> None:
        """Keep elements, as of a list."""
        self.elements.extend(elements)

    add = append

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


class CallRefusedError(pickle.UnpicklingError):
    """A pickle would call a function that does more than make plain data."""


class Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's unpickler with every operation replaced that imports or calls something."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
    stack: list[Any]
    append: Callable[[Any], None]

    def find_class(self, module: str, name: str) -> Any:
        """Return the name itself."""
        return Name(module, name)

    def get_extension(self, code: int) -> None:
        """Refuse names by number, which are of the program that wrote the file."""
        raise CallRefusedError(f"extension {code} of another program")

    def _instantiate(self, cls: Any, arguments: Any) -> None:
        self.append(_call(cls, tuple(arguments)))

    def load_reduce(self) -> None:
        """Replace a function and its arguments by the data that its call stands for."""
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        """Replace a class and its arguments by an object without behaviour."""
        arguments = self.stack.pop()
        self.stack[-1] = _object(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        """Replace a class and its arguments by an object without behaviour."""
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = _object(self.stack[-1], (arguments, keywords))

    def load_build(self) -> None:
        """Keep an object's state as data."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Foreign):
            self.stack[-1].state = state
        elif type(self.stack[-1]) is not OrderedDict:  # a state dict's metadata is not needed
            raise CallRefusedError(f"the state of {_path(self.stack[-1])}")


for _operation, _method in (
    (pickle.REDUCE, Unpickler.load_reduce),
    (pickle.NEWOBJ, Unpickler.load_newobj),
    (pickle.NEWOBJ_EX, Unpickler.load_newobj_ex),
    (pickle.BUILD, Unpickler.load_build),
):
    Unpickler.dispatch[_operation[0]] = _method


def load(file: BinaryIO, **options: Any) -> Any:
    """Unpickle the next object of a file; this module takes the place of `pickle` in `torch.load`."""
    return Unpickler(file, **options).load()


def _object(cls: Any, arguments: Any) -> Any:
    if not isinstance(cls, Name):
        raise CallRefusedError(_path(cls))
    return OrderedDict() if cls.path == "collections.OrderedDict" else Foreign(cls.path, arguments)


def _call(function: Any, arguments: Any) -> Any:
    """Return what a call stands for; `function` must be a `Name`, so that nothing from the file is ever called."""
    if not isinstance(function, Name):
        raise CallRefusedError(_path(function))
    if function.path in _REBUILDING:
        return _REBUILDING[function.path](*arguments)
    if function.path not in DATA_CALLS:
        raise CallRefusedError(function.path)
    return Foreign(function.path, arguments)


def _path(thing: Any) -> str:
    return thing.path if isinstance(thing, Name) else type(thing).__name__


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Rebuild a tensor; `rest` says whether it had gradients and hooks, which do not matter."""
    untyped = storage._untyped_storage
    tensor: Tensor = torch.empty(0, dtype=storage.dtype).set_(untyped, offset, tuple(size), tuple(stride))
    return tensor


def _typed_tensor(storage: Any, offset: int, size: Any, stride: Any, grad: bool, hooks: Any, dtype: Any) -> Any:
    """Rebuild a tensor of a type that has no storage class."""
    kind = getattr(torch, dtype.name, None) if isinstance(dtype, Name) and dtype.module == "torch" else None
    if not isinstance(kind, torch.dtype):
        return Foreign(_path(dtype))
    return torch.empty(0, dtype=kind).set_(storage._untyped_storage, offset, tuple(size), tuple(stride))


def _same(tensor: Any, *rest: Any) -> Any:
    """Return a parameter's tensor."""
    return tensor


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Rebuild a tensor that had attributes; they are left out."""
    return _call(function, arguments)


def _ordered(entries: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(entries)


def _set(elements: Iterable[Any] = ()) -> set[Any]:
    return set(elements)


def _size(sizes: Iterable[Any] = ()) -> tuple[Any, ...]:
    return tuple(sizes)


_REBUILDING: dict[str, Callable[..., Any]] = {
    "builtins.set": _set,
    "collections.OrderedDict": _ordered,
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
}
