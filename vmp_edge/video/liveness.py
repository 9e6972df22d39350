"""Tell a live network stream from a recorded one that comes over the network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

_FILE_SERVERS = frozenset({"http", "https", "ftp", "ftps", "sftp", "smb"})  # protocols that also carry files
_DESCRIPTIONS = ("hls", "dash", "sdp", "rtsp")  # what is downloaded describes a stream, so its own size says nothing
_WATCH = 1.5  # seconds for which a stream that does not say its length is watched
_AHEAD = 8.0  # seconds; no live stream gives that much more than the time that it was watched for
_BYTES = 32 << 20  # that no live stream gives in the time


def find_out(address: str, container: Any, packets: Iterator[Any]) -> tuple[bool, list[Any]]:
    """Return whether a stream is live, and the packets that were read to find out.

    A recorded stream has a length, or comes to its end at once, or comes much faster than it plays.

    Args:
        address: The URL.
        container: PyAV's container.
        packets: The stream's packets. The last one is empty.
    """
    descriptive = container.format.name.startswith(_DESCRIPTIONS)
    if container.duration is not None and container.duration > 0:
        return False, []
    if descriptive or urlsplit(address).scheme.lower() not in _FILE_SERVERS:
        return True, []
    if container.size >= 0:
        return False, []
    if container.format.name == "mpjpeg":  # pictures that the server pushes, as cameras do
        return True, []
    return _watch(packets)


def _watch(packets: Iterator[Any]) -> tuple[bool, list[Any]]:
    began, seen, size = time.monotonic(), list[Any](), 0
    for packet in packets:
        seen.append(packet)
        watched = time.monotonic() - began
        if packet is None or not packet.size:
            return False, seen
        size += packet.size
        if size > _BYTES or _seconds(seen) > watched + _AHEAD:
            return False, seen
        if watched > _WATCH:
            return True, seen
    return False, seen


def _seconds(packets: list[Any]) -> float:
    """Return how much of the stream's time some packets take."""
    first, last = packets[0], packets[-1]
    if first.dts is not None and last.dts is not None:
        return float((last.dts - first.dts) * last.time_base)
    return float(sum((packet.duration or 0) * packet.time_base for packet in packets))
