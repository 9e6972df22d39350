"""ExecuTorch on the device: the engine, and the native library with the scan kernels and a plain C runner."""
