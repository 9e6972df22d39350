"""Many cameras, one recogniser: each has a stream of its own, and a scheduler gives their windows fair turns."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Literal

from ..errors import UsageError, VmpError
from ..recognizer import Prediction, Recognizer
from ..sources import Frame, Message, Paced, Source, open_source
from .governor import Budget, Decision, Governor, ladder
from .motion import MotionGate
from .smoothing import DEFAULT_SMOOTHING, Smoothing
from .statistics import Statistics
from .stream import Stream

State = Literal["stopped", "opening", "running", "lost", "ended", "failed"]

_ENDING = 5.0  # seconds that a capture thread is waited for; one whose camera hangs is left behind


class Camera:
    """One of several cameras; made by `Cameras`.

    Attributes:
        index: Which one it is, counted from 0.
        source: What it was made of, as for `open_source`.
        name: The source as it may be shown, without a password.
        stream: Its frame ring, windows and smoothing.
        state: `opening` till the first frame, `running`, `lost` while a camera that vanished is tried again, `ended`
            when a file is over, `failed`, or `stopped`.
        message: What it said last: why it failed or was lost, that it is back. Empty if it never said anything.
        error: What it failed with, if it is `failed`.
        frame: The newest frame.
    """

    def __init__(self, index: int, source: str, stream: Stream) -> None:
        self.index = index
        self.source = source
        self.name = re.sub(r"//[^/@]*@", "//", source)
        self.stream = stream
        self.state: State = "stopped"
        self.message = ""
        self.error: Exception | None = None
        self.frame: Frame | None = None
        self._run: _Run | None = None

    @property
    def active(self) -> bool:
        """Whether frames come or may come again by themselves."""
        return self.state in ("opening", "running", "lost")

    @property
    def latest(self) -> Prediction | None:
        """The newest result since it was started or was back."""
        return self.stream.latest

    def statistics(self) -> Statistics:
        """How its stream is doing; it counts on when the camera is stopped and started."""
        return self.stream.statistics()


class Cameras:
    """Recognises several cameras with one recogniser, whose weights they share.

    Every camera has a capture thread, which takes its frames as they come. One scheduler thread recognises: whenever
    the engine is free, the next camera in turn that has a window due gets its newest window recognised. So a camera
    waits for at most one window of each other one, however fast those are, and what is too much is dropped camera by
    camera. A camera that fails or is lost does not disturb the others.

    The callbacks are called in those threads and should return at once.

    Args:
        recognizer: Used, not owned: close it yourself, after this.
        sources: One or more, as for `open_source`. A file is played at its own pace.
        hop: As for `Stream`, of every camera; so are
        stride, and
        fps, and
        smoothing, and
        sampling.
        loop: Play a file again when it is over.
        on_prediction: Told each result, in the scheduler's thread.
        on_frame: Told each frame, in the camera's capture thread, after `Camera.frame` was set.
        on_message: Told what the user should know: a camera that failed, vanished or is back; in any thread.
        opener: Opens a source.
        motion_gate: The threshold of each camera's `MotionGate`; None recognises every window.
        budget: For a governor of each camera, whose levels' hops count instead of `hop`; None has none. The latency is
            that of the window itself, without waiting for the camera's turn; the share of the CPU that of all cameras.
        variants: For the governors' levels, by name from the dearest to the cheapest; used, not owned.
        on_decision: Told what a camera's governor decides, in the scheduler's thread.

    Raises:
        UsageError: There is no source, or an option is out of range.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        sources: Sequence[str],
        hop: int = 4,
        stride: int | None = None,
        fps: float | None = None,
        smoothing: Smoothing | None = DEFAULT_SMOOTHING,
        loop: bool = False,
        on_prediction: Callable[[Camera, Prediction], None] | None = None,
        on_frame: Callable[[Camera, Frame], None] | None = None,
        on_message: Callable[[Camera, str], None] | None = None,
        opener: Callable[[str, Message], Source] = open_source,
        sampling: str = "uniform",
        motion_gate: float | None = None,
        budget: Budget | None = None,
        variants: Mapping[str, Recognizer] | None = None,
        on_decision: Callable[[Camera, Decision], None] | None = None,
    ) -> None:
        if not sources:
            raise UsageError("give at least one source")
        self.recognizer = recognizer
        levels = ladder(hop, (None, *(variants or {})))

        def make(index: int, source: str) -> Camera:
            gate = MotionGate(motion_gate) if motion_gate is not None else None
            governor = Governor(budget, levels) if budget is not None else None
            stream = Stream(
                recognizer, hop, stride, fps, smoothing, bgr=True, sampling=sampling, gate=gate, governor=governor,
                variants=variants, on_decision=lambda decision: self._decided(index, decision),
            )  # fmt: skip
            return Camera(index, source, stream)

        self._cameras = [make(index, source) for index, source in enumerate(sources)]
        self._on_decision = on_decision
        self._loop = loop
        self._on_prediction = on_prediction
        self._on_frame = on_frame
        self._on_message = on_message
        self._opener = opener
        self._turns = Turns(len(self._cameras))
        self._changing = threading.RLock()  # one start or stop at a time
        self._scheduler: threading.Thread | None = None
        self._closed = False
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        return len(self._cameras)

    def __getitem__(self, index: int) -> Camera:
        return self._cameras[index]

    def __iter__(self) -> Iterator[Camera]:
        return iter(self._cameras)

    def start(self, index: int | None = None) -> None:
        """Starts a camera, or all; one that is active goes on as it is. Returns before the source is open.

        Args:
            index: Which camera.

        Raises:
            UsageError: There is no such camera, or this is closed.
            BundleError: The engine failed: no camera can give results any more.
        """
        self.check()
        with self._changing:
            if self._closed:
                raise UsageError("these cameras are closed: make them again")
            for camera in self._chosen(index):
                if not camera.active:
                    self._start(camera)
            if self._scheduler is None:
                self._scheduler = threading.Thread(target=self._schedule, name="vmp-edge scheduler", daemon=True)
                self._scheduler.start()

    def stop(self, index: int | None = None) -> None:
        """Stops a camera, or all, and waits until its source is closed (5 s at most, if it hangs).

        Args:
            index: Which camera.

        Raises:
            UsageError: There is no such camera.
        """
        with self._changing:
            chosen = self._chosen(index)
            runs = [camera._run for camera in chosen if camera._run is not None]
            for run in runs:
                run.stop()
            for run in runs:
                run.thread.join(_ENDING)
            for camera in chosen:
                camera.state = "stopped" if camera.active else camera.state

    def check(self) -> None:
        """Raises what recognising failed with, if it did: then no camera gives results any more.

        Raises:
            BundleError: The engine failed.
        """
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stops all cameras and the scheduler. Raises as `check` does."""
        with self._changing:
            self._closed = True
            self.stop()
            self._turns.close()
        if self._scheduler is not None:
            self._scheduler.join()
        self.check()

    def __enter__(self) -> Cameras:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chosen(self, index: int | None) -> list[Camera]:
        if index is None:
            return self._cameras
        if not 0 <= index < len(self._cameras):
            raise UsageError(f"there is no camera {index}: they are numbered 0 to {len(self._cameras) - 1}")
        return [self._cameras[index]]

    def _start(self, camera: Camera) -> None:
        camera.state, camera.message, camera.error = "opening", "", None
        camera.stream.reset()
        camera._run = _Run(f"vmp-edge camera {camera.index}", lambda run: self._capture(camera, run))
        camera._run.thread.start()

    def _capture(self, camera: Camera, run: _Run) -> None:
        try:
            while self._play(camera, run) and self._loop and not run.stopped:
                camera.stream.reset()
            self._settle(camera, run, "ended")
        except Exception as error:  # whatever it is, the other cameras go on
            text = str(error) if isinstance(error, VmpError) else f"{type(error).__name__}: {error}"
            if not run.stopped:
                camera.error = error
            self._settle(camera, run, "failed", text)

    def _play(self, camera: Camera, run: _Run) -> bool:
        """Takes a source's frames to its end; returns whether it can be played again: it is a file."""
        source = self._opener(camera.source, lambda text: self._settle(camera, run, "lost", text))
        repeatable = not source.live
        if repeatable:
            source = Paced(source)
        run.hold(source)
        try:
            while (frame := source.read()) is not None and not run.stopped:
                self._take(camera, frame)
        finally:
            source.close()
        return repeatable

    def _take(self, camera: Camera, frame: Frame) -> None:
        if frame.restarted:
            camera.stream.reset()
        camera.state = "running"
        camera.frame = frame
        if camera.stream.add(frame.image, frame.timestamp):
            self._turns.ask(camera.index)
        if self._on_frame is not None:
            self._on_frame(camera, frame)

    def _settle(self, camera: Camera, run: _Run, state: State, text: str = "") -> None:
        """Takes note of a new state, unless the camera was stopped: what a stopped source says is of no interest."""
        if run.stopped:
            return
        if state != "lost" or camera.state != "opening":
            camera.state = state
        if text:
            camera.message = text
            if self._on_message is not None:
                self._on_message(camera, text)

    def _decided(self, index: int, decision: Decision) -> None:
        if self._on_decision is not None:
            self._on_decision(self._cameras[index], decision)

    def _schedule(self) -> None:
        try:
            while (index := self._turns.next()) is not None:
                camera = self._cameras[index]
                prediction = camera.stream.recognise()
                if prediction is not None and self._on_prediction is not None:
                    self._on_prediction(camera, prediction)
        except BaseException as error:  # it is `check`'s to raise
            self._failure = error
            for camera in self._cameras:
                if camera._run is not None and camera.active:
                    camera._run.stop()
                    camera.state, camera.message = "failed", str(error)


class Turns:
    """Who is next, of several that ask: in a circle, passing over those that did not ask. Safe between threads.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._asking: set[int] = set()
        self._first = 0  # who is asked first for the next turn
        self._closed = False
        self._changed = threading.Condition()

    def ask(self, index: int) -> None:
        """Asks for a turn; to ask again before having it changes nothing."""
        with self._changed:
            self._asking.add(index)
            self._changed.notify()

    def next(self) -> int | None:
        """Waits for someone to ask; returns whose turn it is, None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._asking)
            if self._closed:
                return None
            index = min(self._asking, key=lambda index: (index - self._first) % self._count)
            self._asking.remove(index)
            self._first = index + 1
            return index

    def close(self) -> None:
        """Ends the waiting, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Run:
    """A camera from one start to the next stop: its thread, and the source to close."""

    def __init__(self, name: str, capture: Callable[[_Run], None]) -> None:
        self.thread = threading.Thread(target=capture, args=(self,), name=name, daemon=True)
        self.stopped = False
        self._source: Source | None = None
        self._lock = threading.Lock()

    def hold(self, source: Source) -> None:
        """Takes note of what `stop` must close; closes it if it comes too late."""
        with self._lock:
            self._source = source
            late = self.stopped
        if late:
            source.close()

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            source = self._source
        if source is not None:
            source.close()
