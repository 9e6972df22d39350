"""Time how long the apps take to start on the host bundle, beside a Python that only imports numpy and OpenCV.

python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from vmp_edge.cli import main as vmp_edge

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "startup.md"
SAMPLE = ROOT / "assets" / "egomotion-sample.mp4"
RUN = ("-m", "vmp_edge", "run")
WEBCAM = (str(ROOT / "apps" / "webcam.py"), "--bundle")
STEPS = (
    "numpy and OpenCV imported",
    "`vmp-edge run`: the first result",
    "`apps/webcam.py`: the first result",
    "`vmp-edge serve`: the page answers",
    "`vmp-edge serve`: the camera's first frame",
    "`vmp-edge serve`: the first result",
)


def time_imports() -> float:
    """Return the seconds of a process that imports what any program with a camera needs."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import numpy, cv2"], check=True)
    return time.perf_counter() - start


def time_first_result(program: Sequence[str], bundle: Path) -> float:
    """Return the seconds from starting the process until the first result on a file that plays as fast as possible."""
    command = [sys.executable, *program, str(bundle), "--source", str(SAMPLE), "--headless", "--json"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        seconds = time.perf_counter() - start
        process.terminate()
        process.communicate()
    return seconds


def time_serve(bundle: Path) -> list[float]:
    """Return the seconds from starting the process until the page answers, the first frame and the first result."""
    command = [sys.executable, "-m", "vmp_edge", "serve", str(bundle), "--source", str(SAMPLE), "--port", "0", "--json"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        with urllib.request.urlopen(address) as page:
            page.read()
        seconds = [time.perf_counter() - start]
        for count in ("frames", "windows"):
            while not state(address)["cameras"][0][count]:
                time.sleep(0.005)
            seconds.append(time.perf_counter() - start)
        server.terminate()
        server.communicate()
    return seconds


def state(address: str) -> dict[str, list[dict[str, int]]]:
    """Return the server's own state."""
    with urllib.request.urlopen(f"{address}api/state") as answer:
        return json.load(answer)


def write(rounds: list[list[float]], command: str) -> None:
    """Write the table."""
    columns = list(zip(*rounds, strict=True))
    base = statistics.median(columns[0])
    lines = [
        "# Starting the apps",
        "",
        "With the host bundle of `egomotion-nano` (ExecuTorch, fp32) on the sample clip. `vmp-edge serve` plays the",
        "clip at its own rate, 15 frames per second; a window takes 8 frames. Times from the start of the process;",
        "the apps took turns.",
        "",
        "| till | median s | worst s | over imports alone |",
        "|---|---|---|---|",
    ]
    for name, column in zip(STEPS, columns, strict=True):
        middle = statistics.median(column)
        lines.append(f"| {name} | {middle:.2f} | {max(column):.2f} | {middle / base:.1f} |")
    RESULT.write_text("\n".join([*lines, "", f"Made by `{command}` on a shared machine.", ""]))
    print("\n".join(lines))


def main() -> None:
    """Time the apps in turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="(default: 10)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        if vmp_edge(["build", "--target", "host", "--output", str(bundle)]):
            raise SystemExit("the bundle could not be built")
        apps = (RUN, WEBCAM)
        rounds = [
            [time_imports(), *(time_first_result(app, bundle) for app in apps), *time_serve(bundle)]
            for _ in range(arguments.rounds)
        ]
    write(rounds, f"python benchmarks/startup.py --rounds {arguments.rounds}")


if __name__ == "__main__":
    main()
