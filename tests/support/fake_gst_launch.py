#!/usr/bin/env python3
"""Stands in for `gst-launch-1.0`: writes YUV4MPEG to the fd that it is told, as its first word says.

endless: a frame every 10 ms; N (a number): so many frames, then exit 0; torn: half a frame, exit 0; noise: no
YUV4MPEG at all; fail: an error, exit 1; odd: 3x5 pixels, packed.
"""

import os
import re
import sys
import time

what = sys.argv[2]
fd = int(re.search(r"fd=(\d+)", " ".join(sys.argv)).group(1))
with os.fdopen(fd, "wb") as out:
    if what == "fail":
        sys.exit("ERROR: from element /GstPipeline:pipeline0/GstFail: it failed")
    if what == "noise":
        out.write(b"\x00" * 5000)
        sys.exit(0)
    width, height = (3, 5) if what == "odd" else (8, 6)
    out.write(f"YUV4MPEG2 C420 W{width} H{height} Ip F25:1 A1:1\n".encode())
    chroma = ((height + 1) // 2) * ((width + 1) // 2)
    count = 10**9 if what == "endless" else 2 if what in ("odd", "torn") else int(what)
    for index in range(count):
        frame = b"FRAME\n" + bytes([128]) * (width * height + 2 * chroma)
        out.write(frame[: len(frame) // 2] if what == "torn" and index else frame)
        out.flush()
        if what == "endless":
            time.sleep(0.01)
