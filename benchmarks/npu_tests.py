"""What `make test-npu` found: a row for each file of tests/npu, from pytest's JUnit XML.

Runs in the environment that the tests ran in, whose versions it notes. Writes benchmarks/results/test_npu.md and
test_npu.yaml; files that were not run keep what was found last.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import rows

TABLE = Path(__file__).parent / "results" / "test_npu.yaml"
OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}  # by the XML's words
# What each file's tests are about; the distributions that make it.
FILES = {
    "test_arm64": ("arm64-executorch in int8, qemu", "torch executorch torchao"),
    "test_coreml": ("apple-ane", "torch executorch coremltools"),
    "test_ethosu": ("arm-ethos-u85", "torch executorch tosa-tools ethos-u-vela"),
    "test_openvino": ("openvino", "torch onnx openvino"),
    "test_qnn": ("android-qnn, onnx-qnn", "torch executorch onnxruntime onnxruntime-qnn"),
    "test_vgf": (
        "arm-vgf",
        "torch executorch tosa-tools ai-ml-sdk-model-converter ai-ml-sdk-scenario-runner "
        "ai-ml-emulation-layer-for-vulkan",
    ),
    "test_vulkan": ("android-vulkan", "torch executorch"),
}


def read(path: Path) -> rows.Rows:
    """Rows, by the files' names."""
    found: rows.Rows = {}
    suite = next(ElementTree.parse(path).iter("testsuite"))
    for case in suite.iter("testcase"):
        # a file that is skipped whole has its name where a test has its own
        place = (case.get("classname") or case.get("name") or "").split(".")
        name = next(part for part in place if part in FILES)
        outcome, reason = outcome_of(case)
        row = found.setdefault(name, {"passed": 0, "failed": 0, "skipped": 0, "reasons": [], "seconds": 0.0})
        row[outcome] += 1
        row["seconds"] += float(case.get("time", 0))
        if reason and reason not in row["reasons"]:
            row["reasons"].append(reason)
    for name, row in found.items():
        row["seconds"] = round(row["seconds"])
        row["date"] = (suite.get("timestamp") or "")[:10]
        row["tools"] = versions(FILES[name][1].split())
    return found


def outcome_of(case: ElementTree.Element) -> tuple[str, str]:
    """Passed, failed or skipped, and why."""
    for child in case:
        if child.tag in OUTCOMES:
            told = child.get("message", "")
            if told == "collection skipped":  # then the text is the tuple (file, line, reason)
                told = (child.text or "").rpartition("Skipped: ")[2].removesuffix("')")
            return OUTCOMES[child.tag], told.strip().partition("\n")[0]
    return "passed", ""


def versions(names: list[str]) -> dict[str, str]:
    """Of the distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(found: rows.Rows) -> str:
    """The Markdown."""
    lines = [
        "# Tests of the targets with heavy toolchains",
        "",
        "Each file of `tests/npu` with its last whole result. Arm's toolchains have an environment of their own.",
        "",
        "| file | targets | passed | failed | skipped | why | s | date | tools |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in FILES:
        row: dict[str, Any] | None = found.get(name)
        if row is None:
            lines.append(f"| `{name}.py` | {FILES[name][0]} | | | | | | | not run yet |")
            continue
        tools = ", ".join(f"{tool} {version}" for tool, version in row["tools"].items())
        cells = [row["passed"], row["failed"], row["skipped"], "; ".join(row["reasons"]), row["seconds"], row["date"]]
        lines.append(f"| `{name}.py` | {FILES[name][0]} | {' | '.join(map(str, cells))} | {tools} |")
    return "\n".join([*lines, "", f"{platform.machine()} {platform.system()}. Made by `make test-npu`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("junit", type=Path, help="what `pytest --junitxml` wrote")
    for name, row in read(parser.parse_args().junit).items():
        rows.put(TABLE, name, row, table)


if __name__ == "__main__":
    main()
