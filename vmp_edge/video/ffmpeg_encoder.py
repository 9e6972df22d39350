"""`FfmpegEncoder`: writes H.264 by the program `ffmpeg`, which gets the pictures through a pipe."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .encoder import CONTAINERS, QUALITY, EncodingError, even

_CODECS = ("libx264", "libopenh264", "h264_nvmpi", "h264_v4l2m2m")
_TIMEOUT = 60.0  # seconds that completing a file may take


@functools.cache
def _codec(program: str) -> str | None:
    """Return the encoder for H.264 that an `ffmpeg` has, or None."""
    command = [program, "-hide_banner", "-loglevel", "quiet", "-encoders"]
    try:
        listed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next((codec for codec in _CODECS if codec.encode() in listed), None)


def has_h264() -> bool:
    """Return whether there is an `ffmpeg` that can encode H.264."""
    program = shutil.which("ffmpeg")
    return program is not None and _codec(program) is not None


class FfmpegEncoder:
    """A video file that `ffmpeg` writes.

    Args:
        path: The file.
        rate: Frames per second.
        size: Width and height of the pictures.

    Raises:
        EncodingError: The program is not there, or has no encoder for H.264.
    """

    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        self.note: str | None = None
        program = shutil.which("ffmpeg")
        codec = _codec(program) if program is not None else None
        if program is None or codec is None:
            raise EncodingError("there is no ffmpeg that can encode H.264")
        kind = CONTAINERS[path.suffix.lower()]
        width, height = (side + side % 2 for side in size)
        given = f"-f rawvideo -pix_fmt bgr24 -s {width}x{height} -r {rate.numerator}/{rate.denominator} -i -"
        wanted = f"-an -c:v {codec} -pix_fmt yuv420p -f {kind}"
        quality = f"-preset veryfast -crf {QUALITY}" if codec == "libx264" else ""
        front = "-movflags +faststart" if kind == "mp4" else ""
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        command = [program, "-nostdin", "-loglevel", "error", "-y", *f"{given} {wanted} {quality} {front}".split()]
        try:
            self._process = subprocess.Popen(
                [*command, f"file:{path.absolute()}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
                start_new_session=True,  # so that Ctrl-C does not end it before the file is complete
            )
        except OSError as error:
            self._messages.close()
            raise EncodingError(f"{program} cannot be started: {error.strerror}") from error

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Add a picture, uint8 (H, W, 3) BGR.

        Raises:
            EncodingError: `ffmpeg` has ended, for example because the disk is full.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(even(image).data)
        except (OSError, ValueError):
            raise EncodingError(self._complaint()) from None

    def close(self) -> None:
        """Complete the file.

        Raises:
            EncodingError: `ffmpeg` failed.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        complaint = self._complaint() if code else ""
        self._messages.close()
        if code:
            raise EncodingError(complaint)

    def _complaint(self) -> str:
        """Return the last of ffmpeg's messages."""
        if self._messages.closed:
            return "ffmpeg failed"
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        return f"ffmpeg: {lines[-1][:200]}" if lines else "ffmpeg failed"
