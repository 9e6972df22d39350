"""Cameras, found by their number, their device, or the name that the kernel or udev gives them."""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

import cv2

from ..errors import SourceError
from .base import Message, Source
from .capture import open_capture
from .waiting import in_background

DEVICES = Path("/dev")
KERNEL = Path("/sys/class/video4linux")
BY_NAME = "camera:"  # prefix of a camera's name
_VIDEO_DEVICES = 81  # major number of the devices of video4linux
_HIGHEST_NUMBER = 255  # that Linux gives to a camera; OpenCV takes some of those above for other things


def is_camera(text: str) -> bool:
    """Return whether an address is a camera's number, its name, or a device: any character device, or a link to one.

    A path in `/dev` that does not exist is also a camera's: it is that of a camera which is not connected.
    """
    if text.isdecimal() or text.startswith(BY_NAME):
        return True
    try:
        return stat.S_ISCHR(Path(text).stat().st_mode)
    except (OSError, ValueError):
        return re.fullmatch(r"/dev/(?!fd/|shm/|std)[^!\s]+", text) is not None


def open_camera(text: str, tell: Message, cancelled: threading.Event) -> Source:
    """Open a camera, and wait for its first frame.

    Args:
        text: The camera's number, its device, a link to the device, or `camera:NAME`. A link or a name is looked up
            each time, because a camera that was unplugged may come back as another device.
        tell: Called with a message if the camera does not answer for a while.
        cancelled: Ends the waiting when it is set.

    Raises:
        SourceError: There is no such camera, or it gives no frame.
    """
    if text.startswith(BY_NAME):
        name = text.removeprefix(BY_NAME).strip()
        device, text = find_camera(name), name
    else:
        device = DEVICES / f"video{text}" if text.isdecimal() else Path(text)
    address = int(text) if text.isdecimal() else str(device.resolve())
    if isinstance(address, int) and address > _HIGHEST_NUMBER:
        raise SourceError(f"camera {text} cannot be opened: {_problem(device)}")
    # Given a path, OpenCV would look for a video file in it first.
    is_path = isinstance(address, str) and cv2.videoio_registry.hasBackend(cv2.CAP_V4L2)
    backend = cv2.CAP_V4L2 if is_path else cv2.CAP_ANY
    try:
        # A driver may hang while it opens a camera, for ever.
        return in_background(
            lambda: open_capture(address, f"camera {text}", live=True, backend=backend),
            f"camera {text}", tell, cancelled, discard=lambda late: late.close(),
        )  # fmt: skip
    except SourceError as error:
        if cancelled.is_set():
            raise
        raise SourceError(f"{error}: {_problem(device) or 'does another program use it?'}") from error


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


def _problem(device: Path) -> str | None:
    """Return why a camera's device cannot be opened, as far as its path tells, or None."""
    try:
        status = device.stat()
    except OSError:
        devices = ", ".join(sorted(str(path) for path in DEVICES.glob("video*")))
        return f"there is no {device}" + (f" (there are {devices})" if devices else " (no camera is connected)")
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _VIDEO_DEVICES:
        link = f" (a link to {device.resolve()})" if device.is_symlink() else ""
        return f"{device}{link} is no video device"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"no permission for {device} (join the group that owns it, usually `video`)"
    return None
