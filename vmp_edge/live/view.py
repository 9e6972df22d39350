"""`View`: the window and the recording of a live session. Both show the frame with the overlay."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import MissingDependencyError
from ..sources import Frame
from ..stream.stream import Stream
from ..view import overlay
from ..view.display import Display, DisplayError
from ..view.recording import Recorder


class View:
    """Shows frames with the overlay in a window, and writes them to a recording.

    Args:
        stream: The stream whose results and statistics the overlay shows.
        display: The window. None opens no window.
        recorder: The recording. None writes no recording.
        top: Number of scores in the overlay.
    """

    def __init__(self, stream: Stream, display: Display | None, recorder: Recorder | None, top: int) -> None:
        self._stream = stream
        self._display = display
        self._recorder = recorder
        self._top = top

    @property
    def closed(self) -> bool:
        """True if the user has closed the window."""
        return self._display is not None and self._display.closed

    def show(self, frame: Frame) -> None:
        """Show and record a frame."""
        if self._display is None and self._recorder is None:
            return
        picture = overlay.draw(frame.image, self._stream.latest, self._stream.statistics(), self._top)
        if self._recorder is not None:
            self._recorder.write(picture, frame.timestamp)
        if self._display is not None:
            self._display.show(picture)

    def poll(self) -> None:
        """Let the window take note of key presses while no frames come."""
        if self._display is not None:
            self._display.poll()


def open_display(title: str, on_message: Callable[[str], None]) -> Display | None:
    """Open a window, or say why that is impossible and return None.

    Args:
        title: Title of the window.
        on_message: Called with the reason if there can be no window.
    """
    try:
        return Display(title)
    except (DisplayError, MissingDependencyError) as error:
        on_message(f"{error}; running headless")
        return None
