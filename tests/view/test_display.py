"""The live window, on a screen that draws nowhere."""

import sys

import numpy as np
import pytest
from bundles import grey

from vmp_edge.errors import MissingDependencyError
from vmp_edge.view.display import Display, DisplayError


@pytest.fixture
def window(monkeypatch):
    """A window on SDL's screen that draws nowhere."""
    pytest.importorskip("pygame", reason="the window needs pygame, the extra `display`")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    display = Display("test")
    yield display
    display.close()


def pixels_of(window):
    """Return the window's pixels, (H, W, 3) RGB."""
    import pygame

    return pygame.surfarray.array3d(window._screen).transpose(1, 0, 2)


def test_the_window_shows_the_picture(window):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    window.show(image)
    np.testing.assert_array_equal(pixels_of(window), image[..., ::-1])


def test_a_resized_window_keeps_the_aspect_ratio_of_the_picture(window):
    import pygame

    window.show(grey(200, 48, 64))
    window._screen = pygame.display.set_mode((200, 48), pygame.RESIZABLE)
    window.show(grey(200, 48, 64))
    rows, columns = np.nonzero(pixels_of(window).any(axis=2))
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (68, 132, 0, 48)


@pytest.mark.parametrize("key", ["K_q", "K_ESCAPE", None])
def test_keys_and_the_close_button_close_the_window(window, key):
    import pygame

    window.show(grey(1))
    assert not window.closed
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_a))
    window.poll()
    assert not window.closed
    event = pygame.event.Event(pygame.QUIT) if key is None else pygame.event.Event(
        pygame.KEYDOWN, key=getattr(pygame, key)
    )  # fmt: skip
    pygame.event.post(event)
    window.poll()
    assert window.closed


def test_no_screen_and_no_pygame_are_errors(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(MissingDependencyError, match="needs pygame; run: "):
        Display("test")
    monkeypatch.undo()
    pytest.importorskip("pygame", reason="the window needs pygame, the extra `display`")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        with pytest.raises(DisplayError, match="no screen"):
            Display("test")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(DisplayError, match="no screen"):
        Display("test")
