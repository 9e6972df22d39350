"""A shared library whose code leaves a mark when it runs, for tests that it never runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_SOURCE = """
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void run(void) {
  const char* path = getenv("EVIL_MARK");
  FILE* file = path ? fopen(path, "a") : NULL;
  if (file) fclose(file);
}
"""


@dataclass(frozen=True)
class Evil:
    """The library, and the file that its code makes."""

    library: Path
    mark: Path

    def ran(self) -> bool:
        """Return whether the code ran, in this process or in one that `check` started."""
        return self.mark.exists()

    def check(self, command: list[object]) -> subprocess.CompletedProcess[str]:
        """Run a command that must not run the code. Return what it printed."""
        environment = {**os.environ, "EVIL_MARK": str(self.mark)}
        words = list(map(str, command))
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode >= 0, f"a crash: {done}"
        assert not self.ran(), "code ran that no hash covers"
        return done


def make_evil(folder: Path) -> Evil:
    """Compile the library in a folder, and let its code leave its mark there."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = folder / "evil.c", folder / "evil.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return Evil(library, folder / "mark")
