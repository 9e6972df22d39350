"""Cameras, found by their number, their device, or the name that the kernel or udev gives them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import SourceError
from .base import Source
from .capture import open_capture

DEVICES = Path("/dev")
KERNEL = Path("/sys/class/video4linux")
BY_NAME = "camera:"  # prefix of a camera's name


def is_camera(text: str) -> bool:
    """Return whether an address is a camera's number, device or name."""
    return text.isdecimal() or text.startswith(BY_NAME) or re.fullmatch(r"/dev/(video\d+|v4l/.+)", text) is not None


def open_camera(text: str) -> Source:
    """Open a camera.

    Args:
        text: The camera's number, its device, a link to the device under `/dev/v4l`, or `camera:NAME`. A link or a name
            is looked up each time, because a camera that was unplugged may come back as another device.

    Raises:
        SourceError: There is no such camera, or it gives no frame.
    """
    if text.startswith(BY_NAME):
        name = text.removeprefix(BY_NAME).strip()
        device, text = find_camera(name), name
    else:
        device = DEVICES / f"video{text}" if text.isdecimal() else Path(text)
    address = int(text) if text.isdecimal() else str(device.resolve())
    try:
        return open_capture(address, f"camera {text}", live=True)
    except SourceError as error:
        raise SourceError(f"{error}{_hint(device)}") from error


def find_camera(name: str) -> Path:
    """Find a camera's device by its name.

    Args:
        name: The name that `/sys/class/video4linux/*/name` gives, or the name of a link in `/dev/v4l/by-id`. A part of
            such a name, in upper or lower case, will do if only one camera has it.

    Raises:
        SourceError: No camera has this name, or several have.
    """
    links = {path.name: path for path in sorted((DEVICES / "v4l" / "by-id").glob("*"))}
    if name in links:
        return links[name]
    names = _names()
    for matches in (
        [device for device, full_name in names.items() if full_name == name],
        [device for device, full_name in names.items() if _is_part(name, full_name)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            devices = ", ".join(str(device) for device in matches)
            raise SourceError(
                f"several cameras are called {name!r}: {devices}; give one of these, or its /dev/v4l link"
            )
    matches = [path for link, path in links.items() if _is_part(name, link)]
    if len({path.resolve() for path in matches}) == 1:
        return matches[0]
    known = ", ".join(repr(known) for known in sorted({*names.values(), *links}))
    raise SourceError(f"no camera is called {name!r}" + (f": there are {known}" if known else " (none is connected)"))


def _is_part(text: str, name: str) -> bool:
    """Return whether a text is a part of a name, in upper or lower case. An empty text is not."""
    return bool(text) and text.lower() in name.lower()


def _names() -> dict[Path, str]:
    """Return the name of each camera by its device. If a camera has several devices, this is the one with frames."""
    names = {}
    for folder in sorted(KERNEL.glob("video*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0)):
        try:
            index = (folder / "index").read_text().strip() if (folder / "index").exists() else "0"
            if index == "0":  # the devices with other indices give metadata
                names[DEVICES / folder.name] = (folder / "name").read_text().strip()
        except OSError:  # it was unplugged just now
            continue
    return names


def _hint(device: Path) -> str:
    """Return the probable reason why a camera's device cannot be opened."""
    if not device.exists():
        devices = ", ".join(sorted(str(path) for path in DEVICES.glob("video*")))
        return f": there is no {device}" + (f" (there are {devices})" if devices else " (no camera is connected)")
    if not os.access(device, os.R_OK | os.W_OK):
        return f": no permission for {device} (join the group that owns it, usually `video`)"
    return ": does another program use it?"
