"""Every failure that a user can cause or mend is a `VmpError`: one line that says what is wrong and what to do."""

from __future__ import annotations


class VmpError(Exception):
    """Base of all expected failures; its text is one line meant for the user."""


class UsageError(VmpError):
    """The request itself is wrong: an unknown name, an option out of range."""


class MissingDependencyError(VmpError):
    """An optional package or tool is not installed; the text says what to install."""


class CheckpointError(VmpError):
    """A checkpoint cannot be read, or does not fit the model."""


class BundleError(VmpError):
    """A bundle is missing, damaged, of another format version, or for another machine."""


class BuildError(VmpError):
    """A build did not reach a working bundle; nothing was left behind."""


class GalleryError(VmpError):
    """A gallery of enrolled classes is missing, damaged, or of another model."""


class SourceError(VmpError):
    """A camera, file or stream cannot be opened or read."""
