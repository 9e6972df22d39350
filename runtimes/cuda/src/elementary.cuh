// Conversions to and from float32 and elementary functions for all kernels. NVRTC compiles this file, too.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace vmp_cuda {

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(__half v) { return __half2float(v); }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ inline void store(float* to, float v) { *to = v; }
__device__ inline void store(__half* to, float v) { *to = __float2half(v); }
__device__ inline void store(__nv_bfloat16* to, float v) { *to = __float2bfloat16(v); }

// The relative error is small for very negative v, too; for large v the result is v.
__device__ inline float softplus(float v) { return fmaxf(v, 0.0f) + log1pf(expf(-fabsf(v))); }
__device__ inline float silu(float v) { return v / (1.0f + expf(-v)); }

}  // namespace vmp_cuda
