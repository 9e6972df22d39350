"""What a build of a causal model can be: the rest is refused in one line."""

from __future__ import annotations

from vmp_edge import engines
from vmp_edge.errors import UsageError

from .request import Order


def check(order: Order, name: str) -> None:
    """Check that a causal model can be built as it is ordered.

    Args:
        order: The order.
        name: The model's name.

    Raises:
        UsageError: The engine, the precision, the target or an option is not for causal models.
    """
    for is_wrong, problem in (
        (not order.engine.steps, _unfit_engine(order)),
        (order.target.delegate is not None or order.target.gpu is not None, _unfit_target(order)),
        (not order.runs_here, f"{_unfit_target(order)}, as nothing here runs a step for {order.target.machine}"),
        (order.precision.name not in order.engine.steps, _unfit_precision(order)),
        (order.request.per_frame, "a step embeds each frame once anyway: build it without --per-frame"),
        (bool(order.variants), "there are no variants of causal models: build it without --variants"),
    ):
        if is_wrong:
            raise UsageError(f"{name} is a causal model: {problem}")


def _unfit_engine(order: Order) -> str:
    able = [name for name in engines.available() if engines.record(name).steps]
    return f"the engine {order.engine.name} does not run its steps yet; give --engine with one of {', '.join(able)}"


def _unfit_target(order: Order) -> str:
    return f"bundles of it run on the CPU of the building machine so far, not on {order.target.name}: build for host"


def _unfit_precision(order: Order) -> str:
    able = ", ".join(order.engine.steps)
    return f"the engine {order.engine.name} runs its steps in {able}, not in {order.precision.name}"
