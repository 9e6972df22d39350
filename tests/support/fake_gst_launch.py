#!/usr/bin/env python3
"""Stands in for `gst-launch-1.0`: writes YUV4MPEG to the fd that it is told, as its first word says.

endless: a frame every 10 ms; N (a number): so many frames, then exit 0; torn: half a frame, exit 0; noise: no
YUV4MPEG at all; fail: an error, exit 1; wrong: an error in the pipeline, exit 1; odd: 3x5 pixels, packed; full: a frame
whose caps say that it has full range; hang: nothing at all, for ever; later: an error until the file $NOTE exists.
"""

import os
import re
import signal
import sys
import time
from pathlib import Path

what = sys.argv[2]
fd = int(re.search(r"fd=(\d+)", " ".join(sys.argv)).group(1))
with os.fdopen(fd, "wb") as out:
    if what == "fail":
        sys.exit("ERROR: from element /GstPipeline:pipeline0/GstFail: it failed")
    if what == "later" and not Path(os.environ["NOTE"]).exists():
        sys.exit("ERROR: from element /GstPipeline:pipeline0/GstLater: it is off")
    if what == "wrong":
        sys.exit('WARNING: erroneous pipeline: no element "wrong"')
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "NOTE" in os.environ:  # where the test looks for its number
            note = Path(os.environ["NOTE"])
            part = note.with_suffix(".part")
            part.write_text(str(os.getpid()))
            part.rename(note)
        time.sleep(3600)
    if what == "full":
        name = re.search(r"y4menc name=(\w+)", " ".join(sys.argv)).group(1)
        caps = "video/x-raw, format=(string)I420, colorimetry=(string)1:4:0:0, framerate=(fraction)25/1"
        print(f"/GstPipeline:pipeline0/GstY4mEncode:{name}.GstPad:sink: caps = {caps}", flush=True)
    if what == "noise":
        out.write(b"\x00" * 5000)
        sys.exit(0)
    width, height = (3, 5) if what == "odd" else (8, 6)
    out.write(f"YUV4MPEG2 C420 W{width} H{height} Ip F25:1 A1:1\n".encode())
    luma = bytes([16 if what == "full" else 128]) * (width * height)
    chroma = ((height + 1) // 2) * ((width + 1) // 2)
    count = 10**9 if what in ("endless", "later") else 2 if what in ("odd", "torn", "full") else int(what)
    for index in range(count):
        frame = b"FRAME\n" + luma + bytes([128]) * (2 * chroma)
        out.write(frame[: len(frame) // 2] if what == "torn" and index else frame)
        out.flush()
        if what in ("endless", "later"):
            time.sleep(0.01)
