"""A window that shows pictures.

It uses pygame, which brings its own SDL. The headless OpenCV that this package depends on has no windows.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError, VmpError
from ..installation import install_command


class DisplayError(VmpError):
    """There is no screen to open a window on."""


class Display:
    """A resizable window, which only the main thread may use.

    Args:
        title: The window's title.

    Attributes:
        closed: Whether the user asked to close the window, by `q`, Esc or its close button.

    Raises:
        MissingDependencyError: pygame is not installed.
        DisplayError: There is no screen.
    """

    def __init__(self, title: str) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise MissingDependencyError(f"a window needs pygame; run: {install_command('display')}") from error
        self._pygame: Any = pygame
        # Without a screen, SDL would draw nowhere and report no error.
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"} & os.environ.keys():
            raise DisplayError("there is no screen to open a window on (DISPLAY is not set)")
        try:
            pygame.display.init()  # not pygame.init(), which also opens sound and joysticks
        except pygame.error as error:
            raise DisplayError(f"there is no screen to open a window on ({error})") from error
        self._title = title
        self._screen: Any = None
        self.closed = False

    def show(self, image: npt.NDArray[np.uint8]) -> None:
        """Show a picture, uint8 (H, W, 3) BGR, as large as the window allows.

        Raises:
            DisplayError: The window cannot be opened.
        """
        pygame = self._pygame
        height, width = image.shape[:2]
        if self._screen is None:
            self._open(width, height)
        window_width, window_height = self._screen.get_size()
        scale = min(window_width / width, window_height / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        self._screen.fill((0, 0, 0))
        corner = (window_width - size[0]) // 2, (window_height - size[1]) // 2
        self._screen.blit(pygame.image.frombuffer(rgb.tobytes(), size, "RGB"), corner)
        pygame.display.flip()
        self.poll()

    def poll(self) -> None:
        """Handle keys and the close button. Call this also while there is nothing new to show."""
        pygame = self._pygame
        for event in pygame.event.get():
            quits = event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE)
            self.closed |= quits or event.type == pygame.QUIT

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()

    def _open(self, width: int, height: int) -> None:
        """Open the window in the picture's size, or smaller with the same aspect ratio if the screen is too small."""
        try:
            screen_width, screen_height = self._pygame.display.get_desktop_sizes()[0]
            scale = min(1.0, 0.9 * screen_width / width, 0.9 * screen_height / height)
            width, height = max(1, int(width * scale)), max(1, int(height * scale))
            self._screen = self._pygame.display.set_mode((width, height), self._pygame.RESIZABLE)
        except self._pygame.error as error:
            raise DisplayError(f"the window cannot be opened ({error})") from error
        self._pygame.display.set_caption(self._title)
