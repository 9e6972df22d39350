"""Cameras: by number, by device, by the name that the kernel or udev gives them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import SourceError
from .base import Source
from .capture import open_capture

DEVICES = Path("/dev")
KERNEL = Path("/sys/class/video4linux")
BY_NAME = "camera:"  # before a name


def is_camera(text: str) -> bool:
    """Whether this is a camera's number, device or name."""
    return text.isdecimal() or text.startswith(BY_NAME) or re.fullmatch(r"/dev/(video\d+|v4l/.+)", text) is not None


def open_camera(text: str) -> Source:
    """Opens a camera.

    Args:
        text: Its number, its device, a link to that under `/dev/v4l`, or `camera:NAME`. A link and a name are looked
            up each time: a camera that was unplugged may come back as another device.

    Raises:
        SourceError: There is no such camera, or it gives no frame.
    """
    if text.startswith(BY_NAME):
        name = text.removeprefix(BY_NAME).strip()
        device, text = find_camera(name), name
    else:
        device = DEVICES / f"video{text}" if text.isdecimal() else Path(text)
    what = int(text) if text.isdecimal() else str(device.resolve())
    try:
        return open_capture(what, f"camera {text}", live=True)
    except SourceError as error:
        raise SourceError(f"{error}{_hint(device)}") from error


def find_camera(name: str) -> Path:
    """Finds a camera's device by its name.

    Args:
        name: What `/sys/class/video4linux/*/name` says or a link in `/dev/v4l/by-id` is called; or a part of it, in
            upper or lower case, that only one camera has.

    Raises:
        SourceError: No camera has this name, or several have.
    """
    links = {path.name: path for path in sorted((DEVICES / "v4l" / "by-id").glob("*"))}
    if name in links:
        return links[name]
    named = _names()
    for fits in (name.__eq__, lambda other: bool(name) and name.lower() in other.lower()):
        found = [device for device, other in named.items() if fits(other)]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(str(device) for device in found)
            raise SourceError(
                f"several cameras are called {name!r}: {several}; give one of these, or its /dev/v4l link"
            )
    parts = [path for other, path in links.items() if name and name.lower() in other.lower()]
    if len({path.resolve() for path in parts}) == 1:
        return parts[0]
    there = ", ".join(repr(other) for other in sorted({*named.values(), *links}))
    raise SourceError(f"no camera is called {name!r}" + (f": there are {there}" if there else " (none is connected)"))


def _names() -> dict[Path, str]:
    """The name of each camera's device; of the several devices that one camera may have, that which gives frames."""
    names = {}
    for folder in sorted(KERNEL.glob("video*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0)):
        try:
            index = (folder / "index").read_text().strip() if (folder / "index").exists() else "0"
            if index == "0":  # the others give metadata
                names[DEVICES / folder.name] = (folder / "name").read_text().strip()
        except OSError:  # unplugged just now
            continue
    return names


def _hint(device: Path) -> str:
    if not device.exists():
        there = sorted(str(path) for path in DEVICES.glob("video*"))
        return f": there is no {device}" + (
            f" (there are {', '.join(there)})" if there else " (no camera is connected)"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return f": no permission for {device} (join the group that owns it, usually `video`)"
    return ": does another program use it?"
