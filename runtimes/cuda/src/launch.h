// Host code that all launches share.
#pragma once

#include <cuda_runtime.h>

#include "vmp_cuda.h"

namespace vmp_cuda {

constexpr int64_t kMostBlocks = INT32_MAX;  // the most blocks that a grid can have along x

template <typename Job>
cudaError_t launch(void (*kernel)(Job), dim3 grid, dim3 block, int64_t shared, void* stream, const Job& job) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, job);
}

// Return the status code of the C interface for a CUDA error.
inline int status_of(cudaError_t error) {
  if (error == cudaSuccess) return VMP_CUDA_OK;
  cudaGetLastError();  // clear the error, which the caller's next check would otherwise report
  return VMP_CUDA_ERROR_RUNTIME + error;
}

inline bool is_dtype(int32_t dtype) { return dtype >= VMP_CUDA_FLOAT32 && dtype <= VMP_CUDA_BFLOAT16; }

}  // namespace vmp_cuda
