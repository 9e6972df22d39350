"""The errors that a user can cause or mend. Each is a `VmpError`, one line that says what is wrong and what to do."""

from __future__ import annotations


class VmpError(Exception):
    """Base class of all expected failures. Its text is one line for the user."""


class UsageError(VmpError):
    """The request itself is wrong: a name is unknown, or an option is out of range."""


class MissingDependencyError(VmpError):
    """An optional package or tool is not installed. The text says what to install."""


class CheckpointError(VmpError):
    """A checkpoint cannot be read or does not fit the model."""


class BundleError(VmpError):
    """A bundle is missing or damaged, has another format version, or is for another machine."""


class BuildError(VmpError):
    """A build failed before it had a working bundle. It left nothing behind."""


class GalleryError(VmpError):
    """A gallery of enrolled classes is missing or damaged, or belongs to another model."""


class SourceError(VmpError):
    """A camera, file or stream cannot be opened or read."""
