"""Find the OpenMP runtime that PyTorch has loaded, so that the kernels run on its threads and not beside them."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

_NAMES = ("libgomp", "libiomp", "libomp")  # GNU's, Intel's and LLVM's; all have GNU's GOMP_parallel
_forked = False


def gomp_parallel() -> int | None:
    """Return the address of the runtime's function GOMP_parallel.

    Returns:
        The address, or None if no such runtime is loaded or the system does not list loaded libraries. None, too, in
        forked children, which cannot use their parent's OpenMP threads.
    """
    return None if _forked else _find_gomp_parallel()


@functools.cache
def _find_gomp_parallel() -> int | None:
    try:
        with Path("/proc/self/maps").open() as maps:
            mapped = {fields[5].strip() for line in maps if len(fields := line.split(maxsplit=5)) == 6}
    except OSError:
        return None
    runtimes = [path for path in mapped if Path(path).name.startswith(_NAMES)]
    for path in sorted(runtimes, key=lambda path: "torch" not in path):  # PyTorch's own first
        function = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value
    return None


def _after_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)
