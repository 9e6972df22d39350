"""The versions of the format of manifests. A bundle has the oldest version that says all of it."""

from __future__ import annotations

FORMAT_VERSION = 4  # the newest version that can be read
WITH_EMBEDDING = 2  # for programs that take tokens: a reader that knows only version 1 must not run them on frames
WITH_SAMPLING = 3  # an older reader would take neighbouring frames for a window that spans seconds
WITH_STATES = 4  # for programs that take one step and the states before it: an older reader would give them a clip
