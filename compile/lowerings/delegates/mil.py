"""Core ML's programs run by NumPy, for machines without Core ML: what the file says, not how a device rounds.

Each operation gives float16, and sums inside one are float32. How the Neural Engine sums, Apple does not say.
Definitions: coremltools' reference of MIL operations (iOS 15 to 17).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _slice(x: Array, begin: Any, end: Any, stride: Any, begin_mask: Any, end_mask: Any, squeeze_mask: Any) -> Array:
    cut: list[slice | int] = []
    for axis in range(x.ndim):
        if squeeze_mask is not None and squeeze_mask[axis]:
            cut.append(int(begin[axis]))
            continue
        first = None if begin_mask is not None and begin_mask[axis] else int(begin[axis])
        last = None if end_mask is not None and end_mask[axis] else int(end[axis])
        cut.append(slice(first, last, None if stride is None else int(stride[axis])))
    return x[tuple(cut)]


def _pad(x: Array, pad: Any, mode: Any, constant_val: Any) -> Array:
    assert mode in (None, "constant")
    pairs = np.reshape(pad, (-1, 2))
    widths = [(0, 0)] * (x.ndim - len(pairs)) + [(int(before), int(after)) for before, after in pairs]
    return np.pad(x, widths, constant_values=constant_val or 0)


def _conv(x: Array, weight: Array, bias: Array | None, strides: Any, pad_type: Any) -> Array:
    """Patches that lie side by side, the model's only convolution: (B, C, H, W) -> (B, F, H / s, W / s)."""
    side = weight.shape[-1]
    assert pad_type == "valid" and weight.shape[2:] == (side, side) and list(strides) == [side, side]
    batch, channels, height, width = x.shape
    patches = x.reshape(batch, channels, height // side, side, width // side, side)
    y: Array = np.einsum("bchpwq,fcpq->bfhw", patches, weight, optimize=True)
    return y if bias is None else np.add(y, bias[:, None, None])


def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    y: Array = x @ weight.T
    return y if bias is None else np.add(y, bias)


# By operation: what it takes, by the names of its inputs, and what it does with them in float32.
OPERATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": ("x y", np.add),
    "sub": ("x y", np.subtract),
    "mul": ("x y", np.multiply),
    "real_div": ("x y", np.divide),
    "abs": ("x", np.abs),
    "exp": ("x", np.exp),
    "inverse": ("x epsilon", lambda x, epsilon: 1 / (x + epsilon)),
    "relu": ("x", lambda x: np.maximum(x, 0)),
    "rsqrt": ("x epsilon", lambda x, epsilon: 1 / np.sqrt(x + epsilon)),
    "sigmoid": ("x", _sigmoid),
    "silu": ("x", lambda x: x * _sigmoid(x)),
    "softplus": ("x", lambda x: np.logaddexp(x, 0)),
    "cast": ("x", lambda x: x),
    "linear": ("x weight bias", _linear),
    "conv": ("x weight bias strides pad_type", _conv),
    "reduce_max": ("x axes keep_dims", lambda x, axes, keep: x.max(tuple(axes), keepdims=bool(keep))),
    "reduce_sum": ("x axes keep_dims", lambda x, axes, keep: x.sum(tuple(axes), keepdims=bool(keep))),
    "concat": ("values axis", lambda values, axis: np.concatenate(values, axis)),
    "expand_dims": ("x axes", lambda x, axes: np.expand_dims(x, tuple(axes))),
    "squeeze": ("x axes", lambda x, axes: np.squeeze(x, None if axes is None else tuple(axes))),
    "reshape": ("x shape", np.reshape),
    "transpose": ("x perm", np.transpose),
    "tile": ("x reps", np.tile),
    "pad": ("x pad mode constant_val", _pad),
    "slice_by_index": ("x begin end stride begin_mask end_mask squeeze_mask", _slice),
}


class Interpreter:
    """Runs an ML program; keeps a result until its last use, as all of a large model's would fill the memory.

    Args:
        function: coremltools' ``main``, of `OPERATIONS` alone.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self._operations = [operation for operation in function.operations if operation.op_type != "const"]
        self._last: list[list[str]] = []  # of each operation: what nothing needs after it
        needed = {output.name for output in function.outputs}
        for operation in reversed(self._operations):
            names = {given.name for given in operation.get_flattened_inputs()}
            self._last.append(sorted(names - needed))
            needed |= names
        self._last.reverse()

    def run(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The program's one output, in float32, of its one input."""
        (name,) = self.function.inputs
        values: dict[str, Array] = {name: frames}
        with np.errstate(over="ignore"):  # of float16: infinite, as on a device
            for operation, last in zip(self._operations, self._last, strict=True):
                values[operation.outputs[0].name] = self._compute(operation, values)
                for done in last:
                    values.pop(done, None)  # constants are not in it
        (output,) = self.function.outputs
        return values[output.name].astype(np.float32)

    def _compute(self, operation: Any, values: dict[str, Array]) -> Array:
        names, compute = OPERATIONS[operation.op_type]
        given = [_value(operation.inputs.get(name), values) for name in names.split()]
        return np.asarray(compute(*given)).astype(np.float16)


def _value(given: Any, values: dict[str, Array]) -> Any:
    """A constant, an earlier result, or several; float16 as float32."""
    if given is None:
        return None
    if isinstance(given, (list, tuple)):
        return [_value(each, values) for each in given]
    value = values.get(given.name, given.val)
    return value.astype(np.float32) if getattr(value, "dtype", None) == np.float16 else value
