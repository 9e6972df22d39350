"""The bundle: one folder with everything that a device needs, checked before anything in it is executed.

`Bundle.open` reads and checks a bundle. `staged_bundle` writes one completely or not at all. See docs/bundle.md.
"""

from __future__ import annotations

from ..machine import ANY_MACHINE, host_machine
from .check import check_clip
from .formats import FORMAT_VERSION
from .manifest import MANIFEST_NAME, FileEntry, Manifest
from .reading import Bundle
from .writing import Staging, staged_bundle

__all__ = [
    "ANY_MACHINE",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "Bundle",
    "FileEntry",
    "Manifest",
    "Staging",
    "check_clip",
    "host_machine",
    "staged_bundle",
]
