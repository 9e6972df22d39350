"""`PyavDecoder`: reads files and network streams by PyAV. Importing this module needs PyAV."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..machine import usable_cpu_count
from . import decoder as limits
from .decoder import USUAL_FPS, Patience, Picture, describe_damage
from .liveness import find_out
from .times import FrameTimes

_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_HIDDEN_FRAMES = frozenset({"vp8", "vp9", "av1"})  # codecs with packets that show no frame
_BY_LENGTH = ("matroska", "flv", "mov")  # formats that say their length in front, so that a short file shows
_FASTEST = 1000  # frames per second; a higher rate is taken for a mistake
_MOST_THREADS = 16  # FFmpeg's own limit
_MAKE_TIMES = 1  # AVFMT_FLAG_GENPTS
_FOREVER = 1 << 30
_RELOADS = "10"  # of an HLS list that does not grow any more, until the stream counts as lost


class PyavDecoder:
    """A video that PyAV reads. The arguments are those of `open_decoder`."""

    def __init__(self, address: str, name: str, *, network: bool = False, live: bool | None = None) -> None:
        self.undecodable = 0
        self._name = name
        self._reformatter: Any = av.video.reformatter.VideoReformatter()
        self._read = self._packet_count = self._cut_packets = self._reported = 0
        self._seconds = 0.0
        self._ended = False
        self._lost: str | None = None  # why the file cannot be read to its end
        self._expected: int | None = None  # number of frames of a file that ends before it has given them
        self._container = _open(address, name, network)
        self._size = self._container.size  # negative if it is not known
        try:
            self._stream = _video_stream(self._container, name)
            self._packets: Iterator[Any] = self._demux()
            self.live = False
            if network:
                waiting: list[Any] = []
                if live is None:
                    live, waiting = find_out(address, self._container, self._packets)
                self.live, self._packets = live, _chain(waiting, self._packets)
            self.fps = _rate(self._stream)
            self._length = _length(self._container, self._stream)
            self.frame_count = None if self.live else _count(self._container, self._stream, self.fps)
            self._is_mov = "mov" in self._container.format.name
            self._indexed = len(self._index())
            self._set_threads()
        except BaseException:
            self.close()
            raise
        self._frames = self._decode()
        time_base = Fraction(self._stream.time_base or Fraction(1, 1000))
        self._times = FrameTimes(self.fps or USUAL_FPS, time_base, self._length)

    def read(self) -> Picture | None:
        """Return the next frame that can be decoded and its time, or None at the end.

        Raises:
            SourceError: The stream is live, and was lost.
        """
        frame = next(self._frames, None)
        if frame is None:
            if not self._ended:
                self._ended = True
                self._conclude()
            return None
        if self.live and self._read == 0:  # a camera's stream is joined in the middle, which is no damage
            self.undecodable = 0
        missing, self._reported = self.undecodable - self._reported, self.undecodable
        self._seconds = self._times.next(frame.pts if frame.pts is not None else frame.dts, missing)
        self._read += 1
        return self._picture(frame), self._seconds

    def damage(self) -> str | None:
        """Return what was wrong with the part that was read, as a phrase for messages. None if nothing was."""
        if self.live:
            return None
        parts = [describe_damage(self._read, self.undecodable, self._total(), self._expected), self._shortfall()]
        return " and ".join(part for part in parts if part) or None

    def close(self) -> None:
        """Close the video."""
        self._frames = self._packets = iter(())  # a generator that still reads must end first
        self._container.close()
        self._reformatter = self._stream = None  # which have threads of their own

    def _set_threads(self) -> None:
        """Decode a file in several threads; a live stream in one for each frame, which delays nothing."""
        self._stream.thread_type = "SLICE" if self.live else "AUTO"
        if not self.live:  # at least two, so that a damaged file gives the same frames on every machine
            self._stream.codec_context.thread_count = limits.threads or min(usable_cpu_count() + 1, _MOST_THREADS)

    def _demux(self) -> Iterator[Any]:
        """Yield the packets, also after damaged parts of a file. The last one is empty and asks for what waits."""
        failures = 0
        while failures < 100:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0 if packet.size else failures
                    yield packet
                return
            except av.FFmpegError as error:
                failures += 1
                if not isinstance(error, av.InvalidDataError):
                    if self.live:
                        raise SourceError(f"{self._name} gives no more frames ({reason_of(error)})") from error
                    # A server that gives no length hangs up at the end, which FFmpeg takes for an error.
                    if self._size >= 0 or isinstance(error, TimeoutError):
                        self._lost = reason_of(error)
                    break
        yield None

    def _decode(self) -> Iterator[Any]:
        """Yield the frames that can be decoded."""
        patience = Patience(self.live)
        for packet in self._packets:
            size = packet.size if packet is not None else 0
            self._packet_count += size > 0
            self._cut_packets += bool(size and packet.is_corrupt)
            try:
                frames = self._stream.codec_context.decode(packet if size else None)
            except EOFError:
                return
            except av.FFmpegError as error:
                self.undecodable += 1
                if patience.bad():
                    if self.live:
                        raise SourceError(f"{self._name} gives no frames that can be decoded") from error
                    return
                continue
            for frame in frames:
                patience.good()
                yield frame
        if self.live:
            raise SourceError(f"{self._name} gives no more frames")

    def _picture(self, frame: Any) -> npt.NDArray[np.uint8]:
        """Return a frame as uint8 (H, W, 3) BGR, upright. The pixels are those that OpenCV would give."""
        try:
            converted = self._convert(frame)
        except (av.FFmpegError, ValueError) as error:
            raise SourceError(f"{self._name} has pictures that cannot be converted ({frame.format.name})") from error
        image: npt.NDArray[np.uint8] = converted.to_ndarray()
        turn = _TURNS.get(round(getattr(frame, "rotation", 0)) % 360)
        return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)

    def _convert(self, frame: Any) -> Any:
        try:
            return self._reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC", threads=1)
        except TypeError:  # an older PyAV, which has one thread for this anyway
            return self._reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC")

    def _conclude(self) -> None:
        """Find out at the end of a file whether it is all there, and how many of its frames are missing."""
        stated = int(self._stream.frames)
        if self._is_cut(stated):
            self._expected = stated
            self.undecodable = max(0, self.undecodable - self._cut_packets)  # the cut goes through one more frame
        elif self.undecodable and self._stream.codec_context.name not in _HIDDEN_FRAMES:
            # A decoder does not report every frame that it drops, nor a demuxer every part of the file.
            self.undecodable = max(self.undecodable, self._total() - self._read)

    def _is_cut(self, stated: int) -> bool:
        """Return whether a file ends before the last of the frames that it says it has."""
        if self._packet_count >= stated or self._size <= 0:
            return False
        if self._lost is not None or not self._is_mov:
            return self._lost is not None or self._indexed < stated  # an index at the end is there only if the end is
        # The index of such a file may have frames on purpose that are not shown, so only its places in the file count.
        if not self._indexed:  # an older PyAV, which does not tell the places
            return self._length is not None and self._length - self._seconds > max(1.0, 0.05 * self._length)
        return any(entry.pos + entry.size > self._size for entry in self._index())

    def _index(self) -> Any:
        """Return the entries of the file's index: where each frame is."""
        return getattr(self._stream, "index_entries", ())  # older versions of PyAV do not tell

    def _total(self) -> int:
        """Return how many frames the file has, or has had so far."""
        whole = self._ended and self._expected is None and not self._is_mov
        return max(self._packet_count, self._read, int(self._stream.frames) if whole else 0)

    def _shortfall(self) -> str | None:
        """Return a phrase if a file without a number of frames is much shorter than it says."""
        if not self._ended or self._expected is not None:
            return None
        if self._lost is not None:
            return f"the rest could not be read ({self._lost})"
        end = self._seconds + 1 / (self.fps or USUAL_FPS)
        if self._length is None or self._stream.frames or self._packet_count == 0:
            return None
        if not self._container.format.name.startswith(_BY_LENGTH) or self._length - end < max(1.0, 0.1 * self._length):
            return None
        return f"the file ended after {end:.1f} of {self._length:.1f} s"


def reason_of(error: BaseException) -> str:
    """Return why FFmpeg failed, without the address, which may have a password in it."""
    if isinstance(error, TimeoutError | av.error.ExitError):
        return f"no answer within {limits.OPEN_TIMEOUT:g} s"
    if isinstance(error, av.InvalidDataError):
        return "it is no video that FFmpeg can read"
    number = getattr(error, "errno", None)
    text = os.strerror(number) if isinstance(number, int) and number in errno.errorcode else None
    text = text or getattr(error, "strerror", None)
    return str(text or type(error).__name__)


def _open(address: str, name: str, network: bool) -> Any:
    """Open a file or URL. FFmpeg's own messages stay off the terminal, because PyAV drops them."""
    options = _network_options(address) if network else {}
    if not network:
        address = str(Path(address).absolute())  # because a name with a colon would be taken for a protocol
        if "%" in address:
            options["pattern_type"] = "none"  # or a picture's name would be taken for a pattern
    try:
        # FFmpeg's own time limits are used. Those of PyAV call Python while they wait, which can crash a program as it
        # ends.
        container = av.open(address, container_options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError, UnicodeError) as error:
        if network:
            reason = reason_of(error)
            if address.lower().startswith("rtsp") and isinstance(error, av.InvalidDataError):
                reason = "there is no RTSP server that answers"
            raise SourceError(f"{name} cannot be opened: {reason}") from None
        if isinstance(error, av.InvalidDataError) or not isinstance(error, OSError):
            raise SourceError(f"{name} cannot be opened as a video") from None
        raise SourceError(f"{name} cannot be opened: {reason_of(error)}") from None
    # PyAV asks FFmpeg to make up times where there are none, which come out wrong for B-frames.
    container.flags = int(container.flags) & ~_MAKE_TIMES
    return container


def _network_options(address: str) -> dict[str, str]:
    """Return FFmpeg's options: time limits, and RTSP over TCP unless the variable that OpenCV reads says otherwise."""
    microseconds = str(round(1e6 * min(limits.OPEN_TIMEOUT, limits.READ_TIMEOUT)))
    scheme = address.partition(":")[0].lower()
    options = {"rw_timeout": microseconds, "m3u8_hold_counters": _RELOADS}
    if not scheme.startswith("rtmp"):  # for which it means to wait for somebody who connects
        options["timeout"] = microseconds
    if given := os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS"):
        return {**options, **dict(pair.split(";", 1) for pair in given.split("|") if ";" in pair)}
    return {**options, "rtsp_transport": "tcp"} if scheme.startswith("rtsp") else options


def _video_stream(container: Any, name: str) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise SourceError(f"{name} cannot be opened as a video: it has no pictures")
    if stream.codec_context is None:
        raise SourceError(f"{name} cannot be opened as a video: FFmpeg has no decoder for it")
    return stream


def _rate(stream: Any) -> float | None:
    """Return the frames per second. A stream without times has only what its codec says."""
    rates = (stream.average_rate, stream.guessed_rate)
    for rate in rates if stream.start_time is not None else reversed(rates):
        if rate is not None and 0 < rate <= _FASTEST:
            return float(rate)
    return None


def _length(container: Any, stream: Any) -> float | None:
    """Return the length in seconds that a file states, or None. MPEG streams do not state it: FFmpeg guesses."""
    if container.format.name.startswith("mpeg"):
        return None
    if stream.duration is not None and stream.time_base is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration is not None and container.duration > 0 else None


def _count(container: Any, stream: Any, fps: float | None) -> int | None:
    """Return the number of frames that the index has, or as many as fit into the length. None if neither is known."""
    if stream.frames > 0:
        return int(stream.frames)
    count = round((container.duration or 0) / 1e6 * (fps or 0.0))
    return count if 0 < count < _FOREVER else None


def _chain(first: Iterable[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rest
