"""Run Core ML's programs (MIL) with NumPy, for machines without Core ML.

This shows what the file computes, not how a device rounds: each operation's result is float16, and sums inside an
operation are float32. Apple does not say how the Neural Engine sums. The definitions are those of coremltools'
reference of MIL operations (iOS 15 to 17).
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
    """Convolve patches that lie side by side, as the model's only convolution does: (B, C, H, W) -> (B, F, h, w)."""
    side = weight.shape[-1]
    assert pad_type == "valid" and weight.shape[2:] == (side, side) and list(strides) == [side, side]
    batch, channels, height, width = x.shape
    patches = x.reshape(batch, channels, height // side, side, width // side, side)
    y: Array = np.einsum("bchpwq,fcpq->bfhw", patches, weight, optimize=True)
    return y if bias is None else np.add(y, bias[:, None, None])


def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    y: Array = x @ weight.T
    return y if bias is None else np.add(y, bias)


# For each operation the names of its inputs, and the function that computes it from them in float32.
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
    """An interpreter of an ML program.

    It keeps each result only until its last use, as all results of a large model together would fill the memory.

    Args:
        function: coremltools' ``main``, with no other operations than those in `OPERATIONS`.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self._operations = [operation for operation in function.operations if operation.op_type != "const"]
        self._last_used: list[list[str]] = []  # for each operation, the results that nothing reads after it
        needed = {output.name for output in function.outputs}
        for operation in reversed(self._operations):
            names = {value.name for value in operation.get_flattened_inputs()}
            self._last_used.append(sorted(names - needed))
            needed |= names
        self._last_used.reverse()

    def run(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the program's one output, in float32, for its one input."""
        (name,) = self.function.inputs
        values: dict[str, Array] = {name: frames}
        with np.errstate(over="ignore"):  # numbers beyond float16 become infinite, as on a device
            for operation, last_used in zip(self._operations, self._last_used, strict=True):
                values[operation.outputs[0].name] = self._compute(operation, values)
                for unneeded in last_used:
                    values.pop(unneeded, None)  # constants are not in `values`
        (output,) = self.function.outputs
        return values[output.name].astype(np.float32)

    def _compute(self, operation: Any, values: dict[str, Array]) -> Array:
        names, compute = OPERATIONS[operation.op_type]
        arguments = [_value(operation.inputs.get(name), values) for name in names.split()]
        return np.asarray(compute(*arguments)).astype(np.float16)


def _value(source: Any, values: dict[str, Array]) -> Any:
    """Return an operation's input: a constant or an earlier result, or a list of them; float16 becomes float32."""
    if source is None:
        return None
    if isinstance(source, (list, tuple)):
        return [_value(item, values) for item in source]
    value = values.get(source.name, source.val)
    return value.astype(np.float32) if getattr(value, "dtype", None) == np.float16 else value
