"""What to type to install a missing extra, whichever way the package itself was installed."""

from __future__ import annotations


def install_command(extra: str) -> str:
    """Return the shell command that installs an extra, such as `serve`, for error messages."""
    return f"pip install 'vmp-edge[{extra}]'"
