"""Check the installed package as a device has it: with numpy, OpenCV and PyYAML alone, outside of a checkout.

Run it with the Python of a fresh environment into which nothing but the wheel was installed.
"""

import ctypes
import importlib.metadata
from pathlib import Path

import vmp_edge
from vmp_edge.runtimes import native


def main() -> None:
    """Check the version, the native library and that there is no CUDA library.

    Raises:
        AssertionError: The wheel is not as it should be.
        OSError: The native library cannot be loaded on this machine.
    """
    folder = Path(native.__path__[0])
    library = ctypes.CDLL(str(folder / "libvmp_ops.so"))
    library.vmp_ops_isa.restype = ctypes.c_char_p
    assert importlib.metadata.version("vmp-edge") == vmp_edge.__version__
    assert not (folder / "libvmp_cuda.so").exists(), "a wheel carries no CUDA library"
    print(f"vmp-edge {vmp_edge.__version__}, kernels for {library.vmp_ops_isa().decode()}")


if __name__ == "__main__":
    main()
