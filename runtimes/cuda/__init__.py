"""The scan and the convolution on NVIDIA GPUs: the CUDA sources of libvmp_cuda.so."""
