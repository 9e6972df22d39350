"""What a causal model carries from step to step, as one flat vector of float32. Imports no tensor library.

The vector of a stream, (n,), has the layers one after the other. Of each layer it has first the inputs of the
convolution, (K - 1, D), the oldest first, and then the state of the scan, (D, N). A layer that scans over time at each
place has these for each of its P places, (P, K - 1, D) and then (P, D, N). The last element says whether the stream has
started: 0 before its first step, and 1 from then on. It decides where a scan with the elemental residual starts, see
`vmp_edge.models.steps`. A stream that has not started yet has a vector of zeros.

The size depends on the model alone, not on how long a stream has run, and streams may lie side by side in a batch,
(batch, n), each as far as it is.

Lowered programs take the vector in parts (`program_states`), one after the other and each with a name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .options import ModelOptions


@dataclass(frozen=True)
class Part:
    """A part of the vector.

    Attributes:
        start: The index of its first element.
        shape: Its shape, row by row.
    """

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The index after its last element."""
        return self.start + math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where everything lies in the vector.

    Attributes:
        inputs: Of each layer the last inputs of the convolution, (K - 1, D) or (P, K - 1, D).
        states: Of each layer the state of the scan, (D, N) or (P, D, N).
    """

    inputs: tuple[Part, ...]
    states: tuple[Part, ...]

    @property
    def started(self) -> int:
        """The index of the element that says whether the stream has started."""
        return self.states[-1].stop

    @property
    def size(self) -> int:
        """The number of elements, n."""
        return self.started + 1


def layout(options: ModelOptions) -> Layout:
    """Return the layout of a causal model's state.

    Args:
        options: The model's options.
    """
    inputs, states, start = [], [], 0
    for layer in range(options.depth):
        places = (options.step_tokens,) if options.scans_time_first(layer) else ()
        inputs.append(Part(start, (*places, options.d_conv - 1, options.d_inner)))
        states.append(Part(inputs[-1].stop, (*places, options.d_inner, options.d_state)))
        start = states[-1].stop
    return Layout(tuple(inputs), tuple(states))


def program_states(options: ModelOptions) -> dict[str, tuple[int, ...]]:
    """Return the states that a lowered step program takes and gives, in their order: the shape of each by its name.

    They are the parts of the vector, so that one after the other they are the vector itself. A part without elements,
    which the inputs of a convolution with one tap are, is left out.

    Args:
        options: The options of a causal model.

    Returns:
        Of each layer ``inputs-LAYER``, (R, K - 1, D), and ``h-LAYER``, (R, D, N), and at the end ``started``,
        (1, 1, 1). R is 1, or P in layers over time.
    """
    where, shapes = layout(options), {}
    for layer, (inputs, state) in enumerate(zip(where.inputs, where.states, strict=True)):
        for name, part in ((f"inputs-{layer}", inputs), (f"h-{layer}", state)):
            if math.prod(part.shape):
                shapes[name] = part.shape if len(part.shape) == 3 else (1, *part.shape)
    return {**shapes, "started": (1, 1, 1)}
