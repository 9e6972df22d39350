// Prepares CUDA C++ source to be compiled as C++ and launched by driver.cpp. Include this header, then the source, and
// then write VMP_KERNEL(name) for each of its kernels.
#pragma once

#include <cmath>
#include <utility>

#include "cuda_fp16.h"
#include "cuda_runtime.h"

#define __restrict__

typedef half_number half;  // the type of TVM's kernels, which cast and copy it

template <typename... Parameters>
constexpr int vmp_count(void (*)(Parameters...)) {
  return sizeof...(Parameters);
}

#define VMP_KERNEL(name)                                                                                               \
  extern "C" __attribute__((visibility("default"))) const int vmp_count_##name = vmp_count(name);                      \
  extern "C" __attribute__((visibility("default"))) int vmp_launch_##name(const unsigned* grid, const unsigned* block, \
                                                                          size_t shared, void** arguments) {           \
    return cudaLaunchKernel(name, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), arguments,      \
                            shared);                                                                                   \
  }
