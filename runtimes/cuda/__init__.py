"""The scan on NVIDIA GPUs: CUDA sources and, where they were built, libvmp_cuda.so."""
