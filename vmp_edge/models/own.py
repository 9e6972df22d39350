"""The names of our own models. `zoo` loads them, which needs PyTorch."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Return the names of the models whose weights come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.pth"))
