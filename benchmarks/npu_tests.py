"""Write the results of `make test-npu` as a table with a row for each file of tests/npu, from pytest's JUnit XML.

Runs in the environment of the tests and notes its versions. Writes benchmarks/results/test_npu.md and test_npu.yaml;
files that were not run keep their last results.
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
OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}  # by the XML's tags
# By test file: the targets that it tests, and the distributions that the tests need.
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
    """Return a row for each test file in the XML."""
    results: rows.Rows = {}
    suite = next(ElementTree.parse(path).iter("testsuite"))
    for case in suite.iter("testcase"):
        # if a whole file is skipped, its name stands where a test's name stands otherwise
        place = (case.get("classname") or case.get("name") or "").split(".")
        name = next(part for part in place if part in FILES)
        outcome, reason = outcome_of(case)
        row = results.setdefault(name, {"passed": 0, "failed": 0, "skipped": 0, "reasons": [], "seconds": 0.0})
        row[outcome] += 1
        row["seconds"] += float(case.get("time", 0))
        if reason and reason not in row["reasons"]:
            row["reasons"].append(reason)
    for name, row in results.items():
        row["seconds"] = round(row["seconds"])
        row["date"] = (suite.get("timestamp") or "")[:10]
        row["tools"] = versions(FILES[name][1].split())
    return results


def outcome_of(case: ElementTree.Element) -> tuple[str, str]:
    """Return ``passed``, ``failed`` or ``skipped``, and the reason."""
    for child in case:
        if child.tag in OUTCOMES:
            reason = child.get("message", "")
            if reason == "collection skipped":  # then the text is the tuple (file, line, reason)
                reason = (child.text or "").rpartition("Skipped: ")[2].removesuffix("')")
            return OUTCOMES[child.tag], reason.strip().partition("\n")[0]
    return "passed", ""


def versions(names: list[str]) -> dict[str, str]:
    """Return the versions of Python and of distributions."""
    installed = {"python": platform.python_version()}
    for name in names:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def table(results: rows.Rows) -> str:
    """Return the table in Markdown."""
    lines = [
        "# Tests of the targets with heavy toolchains",
        "",
        "Each file of `tests/npu` with its last complete result. Arm's toolchains have an environment of their own.",
        "",
        "| file | targets | passed | failed | skipped | why | s | date | tools |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in FILES:
        row: dict[str, Any] | None = results.get(name)
        if row is None:
            lines.append(f"| `{name}.py` | {FILES[name][0]} | | | | | | | not run yet |")
            continue
        tools = ", ".join(f"{tool} {version}" for tool, version in row["tools"].items())
        cells = [row["passed"], row["failed"], row["skipped"], "; ".join(row["reasons"]), row["seconds"], row["date"]]
        lines.append(f"| `{name}.py` | {FILES[name][0]} | {' | '.join(map(str, cells))} | {tools} |")
    return "\n".join([*lines, "", f"{platform.machine()} {platform.system()}. Made by `make test-npu`.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("junit", type=Path, help="the file that `pytest --junitxml` wrote")
    for name, row in read(parser.parse_args().junit).items():
        rows.put(TABLE, name, row, table)


if __name__ == "__main__":
    main()
