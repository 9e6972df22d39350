"""VideoMamba and VideoMambaPro on devices.

Importing this package needs numpy, OpenCV and PyYAML only; engines and `vmp_edge.models` are imported when asked for.
"""

from __future__ import annotations

from vmp_edge.errors import VmpError

__version__ = "0.1.0"
__all__ = ["VmpError", "__version__"]
