"""`attempt` calls a function in a process of its own, which may be killed by what it loads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass

_MARK = "vmp-edge-trial:"
_CODE = f"""
import importlib, json, sys
path, place, *arguments = json.loads(sys.argv[1])
sys.path[:] = path
try:
    module, _, name = place.partition(":")
    outcome = {{"text": str(getattr(importlib.import_module(module), name)(*arguments))}}
except BaseException as error:
    kind, text = type(error), " ".join(str(error).split())
    outcome = {{"error": text if kind.__module__.startswith("vmp_edge") else f"{{kind.__name__}}: {{text}}"}}
print("\\n{_MARK}" + json.dumps(outcome), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """The end of a trial.

    Attributes:
        works: Whether the function returned.
        text: What it returned, or why it did not.
    """

    works: bool
    text: str


class Attempt:
    """A call that has begun in a process of its own. `outcome` waits for it.

    Args:
        place: The function, ``module:name``.
        arguments: Its arguments, texts.
        timeout: Seconds after which it has failed.
    """

    def __init__(self, place: str, *arguments: str, timeout: float = 120.0) -> None:
        request = json.dumps([sys.path, place, *arguments])
        self._timeout = timeout
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, request],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def outcome(self) -> Outcome:
        """Wait for the end, and return it."""
        try:
            out, err = self._process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            return Outcome(False, f"it does not answer within {self._timeout:g} seconds")
        finally:
            self._process.kill()
            self._process.wait()
        lines = [line.removeprefix(_MARK) for line in out.splitlines() if line.startswith(_MARK)]
        if self._process.returncode or not lines:
            return Outcome(False, f"it kills the process that tries ({_ending(self._process.returncode, err)})")
        found = json.loads(lines[-1])
        return Outcome("text" in found, found.get("text") or found.get("error", ""))


def _ending(code: int, err: str) -> str:
    if code < 0:
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return err.strip().splitlines()[-1] if err.strip() else f"exit code {code}"
