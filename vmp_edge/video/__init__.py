"""Decoding and encoding of video, by PyAV (FFmpeg's own bindings) if it is installed, else by OpenCV.

Files, URLs, clips, recordings, calibration and training all go through `open_decoder` and `open_encoder`.
"""

from __future__ import annotations

from ..installation import install_command
from .decoder import Decoder, use_threads
from .encoder import Encoder, EncodingError, open_encoder

__all__ = [
    "Decoder",
    "Encoder",
    "EncodingError",
    "fallback_note",
    "has_pyav",
    "open_decoder",
    "open_encoder",
    "use_threads",
]


def has_pyav() -> bool:
    """Return whether PyAV is installed and can be loaded."""
    try:
        import av  # noqa: F401
    except (ImportError, OSError):  # not installed, or a library that it needs is missing
        return False
    return True


def open_decoder(address: str, name: str, *, network: bool = False, live: bool | None = None) -> Decoder:
    """Open a video to read its frames.

    Args:
        address: Path of a file, or a URL if `network` is true.
        name: The video's name for messages, without secrets.
        network: Whether the address is a URL.
        live: Whether the URL is a live stream. None finds out. A file is never live.

    Raises:
        SourceError: The video cannot be opened.
    """
    if has_pyav():
        from .pyav import PyavDecoder

        return PyavDecoder(address, name, network=network, live=live)
    from .opencv import OpencvDecoder

    return OpencvDecoder(address, name, network=network, live=live)


def fallback_note() -> str | None:
    """Return a sentence that says what is worse without PyAV and how to install it. None if PyAV is installed."""
    if has_pyav():
        return None
    return (
        "PyAV is not installed, so OpenCV reads videos: it may take bad frames for the end of a file, and recorded "
        f"streams on web servers for live ones; run: {install_command('video')}"
    )
