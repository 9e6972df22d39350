"""Makes the picture of the preview in the documentation: `python tests/support/screenshot.py --bundle build/host`.

The scene is the sample clip, which `calibration/egomotion/sample.py` draws, beside a darker mirror image of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from browser import open_browser, resize

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "assets" / "egomotion-sample.mp4"


def mirrored(path: Path) -> Path:
    """Writes the sample as another camera might see it: from the other side, later, at dusk."""
    capture = cv2.VideoCapture(str(SAMPLE))
    writer = None
    frames = []
    while (found := capture.read())[0]:
        frames.append(cv2.convertScaleAbs(cv2.flip(found[1], 1), alpha=0.7))
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), capture.get(cv2.CAP_PROP_FPS), (width, height))
    for frame in frames[150:] + frames[:150]:
        writer.write(frame)
    writer.release()
    return path


def main() -> None:
    """Serves the scene, looks at it, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "host")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "serve.png")
    parser.add_argument("--seconds", type=float, default=40, help="how much to have on the timeline (default: 40)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = {"gate.mp4": SAMPLE, "yard.mp4": mirrored(Path(folder) / "mirror.mp4")}
        for name, path in sources.items():
            (Path(folder) / name).symlink_to(path)
        options = [option for name in sources for option in ("--source", name)]
        command = [sys.executable, "-m", "vmp_edge", "serve", str(args.bundle.resolve()), *options]
        command += ["--loop", "--port", "0", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as server, open_browser() as page:
            assert server.stdout is not None
            resize(page, 980, 905)
            page.get(json.loads(server.stdout.readline())["address"])
            time.sleep(args.seconds)
            page.execute_script("document.querySelector('#classes').open = true")
            page.execute_script("document.documentElement.style.overflow = 'hidden'")
            page.save_screenshot(str(args.output))
            server.terminate()
    print(f"{args.output}: {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
