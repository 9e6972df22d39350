"""The overlay on a picture: the label, the best scores as bars, and the stream's statistics."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..recognizer import Prediction
from ..stream.statistics import Statistics

_MIN_HEIGHT = 360  # smaller pictures are enlarged, so that the text can be read
_PANEL, _TRACK = (28, 22, 18), (84, 74, 66)  # BGR
_TEXT, _FAINT, _ACCENT = (250, 248, 246), (190, 182, 174), (96, 200, 255)
_FONT = cv2.FONT_HERSHEY_DUPLEX


def draw(
    image: npt.NDArray[np.uint8], prediction: Prediction | None, statistics: Statistics, top: int = 5
) -> npt.NDArray[np.uint8]:
    """Draw the overlay on a copy of a picture.

    Args:
        image: Picture, uint8 (H, W, 3) BGR. It is not changed.
        prediction: The prediction to show, or None before the first window is full.
        statistics: The stream's statistics, for the line at the bottom.
        top: Number of bars.

    Returns:
        A new picture, uint8 BGR. It is enlarged by a whole factor if the picture is too small for text.
    """
    factor = -(-_MIN_HEIGHT // image.shape[0])
    canvas: npt.NDArray[np.uint8] = image.copy()
    if factor > 1:
        canvas = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    _draw_panel(_Sheet(canvas), prediction, statistics, top)
    return canvas


@dataclass
class _Sheet:
    """A picture to draw on. Lengths are in a unit that grows with the picture, so the overlay always fits the same way.

    Args:
        canvas: Picture, uint8 (H, W, 3) BGR, which is drawn on.
    """

    canvas: npt.NDArray[np.uint8]

    @property
    def unit(self) -> float:
        """The unit of length in pixels."""
        height, width = self.canvas.shape[:2]
        return float(min(height / 360, width / 340))

    def px(self, length: float) -> int:
        """Convert a length in units to whole pixels."""
        return round(length * self.unit)

    def text(self, text: str, x: int, baseline: int, size: float, colour: tuple[int, int, int]) -> None:
        """Write a text of a size in units, from `x` on the baseline, both in pixels."""
        scale = size * self.unit / 30
        thickness = max(1, round(scale * 1.1))
        cv2.putText(self.canvas, text, (x, baseline), _FONT, scale, colour, thickness, cv2.LINE_AA)

    def fit_text(self, text: str, x: int, baseline: int, width: int, size: float, colour: tuple[int, int, int]) -> None:
        """Write a text within a width in pixels: smaller if it is too wide, and cut if it is still too wide."""
        text = text.encode("ascii", "replace").decode()  # OpenCV 4's fonts have no other characters
        smallest = 0.65 * size
        while size > smallest and self.width(text, size) > width:
            size = max(size - 1, smallest)
        if self.width(text, size) > width:
            while text and self.width(text + "..", size) > width:
                text = text[:-1]
            text += ".."
        self.text(text, x, baseline, size, colour)

    def width(self, text: str, size: float) -> int:
        """Return a text's width in pixels."""
        scale = size * self.unit / 30
        return int(cv2.getTextSize(text, _FONT, scale, max(1, round(scale * 1.1)))[0][0])

    def shade(self, left: int, top: int, right: int, bottom: int) -> None:
        """Darken a rectangle, so that the picture still shines through."""
        area = self.canvas[max(top, 0) : bottom, max(left, 0) : right]
        area[...] = cv2.addWeighted(area, 0.25, np.full_like(area, _PANEL), 0.75, 0)

    def bar(self, left: int, top: int, width: int, height: int, share: float, colour: tuple[int, int, int]) -> None:
        """Draw a bar that fills a share of its track, from 0 to 1."""
        cv2.rectangle(self.canvas, (left, top), (left + width, top + height), _TRACK, cv2.FILLED)
        filled = round(width * min(max(share, 0.0), 1.0))
        if filled > 0:
            cv2.rectangle(self.canvas, (left, top), (left + filled, top + height), colour, cv2.FILLED)


def _draw_panel(sheet: _Sheet, prediction: Prediction | None, statistics: Statistics, top: int) -> None:
    """Draw the panel at the lower left: the label with its score, the bars, and the line of statistics."""
    px = sheet.px
    bars = prediction.top(top) if prediction is not None else []
    margin, pad, row = px(10), px(12), px(17)
    width = px(250)
    height = px(36) + len(bars) * row + px(28)
    left, upper = margin, sheet.canvas.shape[0] - margin - height
    sheet.shade(left, upper, left + width, upper + height)
    sheet.bar(left, upper, px(3), height, 1.0, _ACCENT)

    x, y = left + pad, upper + px(26)
    if prediction is None:
        filled = f" {statistics.filled:.0%}" if statistics.filled < 1 else ""
        sheet.text(f"filling the window{filled} ...", x, y, 17, _FAINT)
    else:
        score = f"{prediction.score:.0%}"
        score_left = left + width - pad - sheet.width(score, 17)
        sheet.fit_text(prediction.label, x, y, score_left - x - px(8), 22, _TEXT)
        sheet.text(score, score_left, y, 17, _ACCENT)
    y += px(8)
    name_width = px(125)
    for label, share in bars:
        colour = _ACCENT if prediction is not None and label == prediction.label else _FAINT
        sheet.fit_text(label, x, y + px(12), name_width - px(6), 11, colour)
        sheet.bar(x + name_width, y + px(5), width - 2 * pad - name_width, px(7), share, colour)
        y += row
    sheet.text(_status(prediction, statistics), x, upper + height - px(11), 11, _FAINT)


def _status(prediction: Prediction | None, statistics: Statistics) -> str:
    """Return the line of statistics: frame rate, latency, dropped frames and the governor's level."""
    latency = f"{prediction.latency * 1e3:.1f} ms" if prediction is not None else "- ms"
    if prediction is not None and prediction.skipped:
        latency = "still"  # nothing moves, so nothing was recognised
    level = f"   level {statistics.level}" if statistics.level else ""
    return f"{statistics.frames_per_second:.1f} fps   {latency}   {statistics.dropped} dropped{level}"
