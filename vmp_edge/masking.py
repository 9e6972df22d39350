"""`masked` hides the secrets of an address. Everything that shows, logs, sends or stores an address calls it."""

from __future__ import annotations

import re


def masked(address: str) -> str:
    """Return an address without its secrets, for messages and logs."""
    return re.sub(r"//[^/@]*@", "//", address)
