"""The ways in which a scan can be written."""

from __future__ import annotations

from typing import NamedTuple

FORMS = ("loop", "hillis-steele", "scan")
SOFTPLUS = ("operator", "polynomial")


class Form(NamedTuple):
    """A way to write a scan in ordinary operations.

    Attributes:
        form: One of `FORMS`.
        chunk: Tokens of a chunk, at least 2; the form ``"scan"`` does not use it.
        softplus: ``"operator"``, or ``"polynomial"`` where a backend has neither softplus nor log.
    """

    form: str = "loop"
    chunk: int = 16
    softplus: str = "operator"


DEFAULT = Form()


def require_form(form: Form) -> None:
    """Check a form.

    Raises:
        ValueError: The form does not exist.
    """
    if form.form not in FORMS or form.softplus not in SOFTPLUS or form.chunk < 2:
        raise ValueError(
            f"{form} is not a form of the scan; form is one of {', '.join(FORMS)}, chunk at least 2, "
            f"softplus one of {', '.join(SOFTPLUS)}"
        )
