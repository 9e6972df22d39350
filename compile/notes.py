"""What a build will leave out because something is not installed that it can do without: said before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmp_edge.errors import MissingDependencyError
from vmp_edge.installation import install_command

from .cross import TOOLCHAINS
from .emulation.qemu import require_emulator
from .needs import has_package

if TYPE_CHECKING:
    from .request import Order


def of(order: Order) -> list[str]:
    """Return a line for each thing that a build will leave out."""
    return [*_parity_notes(order), *_report_notes(order)]


def _parity_notes(order: Order) -> list[str]:
    machine = "aarch64" if order.target.machine == "android" else order.target.machine
    if order.runs_here or order.target.delegate is not None or machine not in TOOLCHAINS:
        return []
    if order.request.parity_clips == 0:
        return []
    try:
        require_emulator(machine)
    except MissingDependencyError as error:
        return [f"the bundle will not be compared with its source model: {error}"]
    return []


def _report_notes(order: Order) -> list[str]:
    plan = order.plan
    if plan is None or not (plan.procedural or plan.held_out or plan.calibration):
        return []
    missing = [name for name in ("jinja2", "matplotlib") if not has_package(name)]
    if not missing:
        return []
    return [f"there will be no report: it needs {' and '.join(missing)}; run: {install_command('report')}"]
