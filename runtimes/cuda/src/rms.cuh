// Divide rows by their root mean square: y = x / sqrt(mean(x^2) + epsilon). A warp computes a row. Device code alone.
#pragma once

#include "elementary.cuh"

namespace vmp_cuda {

struct Normalise {
  const float* x;  // (rows, width); x_stride elements from one row to the next
  void* y;         // (rows, width) of type O
  int64_t x_stride;
  int rows, width;
  float epsilon;
};

constexpr int kNormaliseWarps = 4;  // warps of a block

template <typename O>
__device__ void normalise(const Normalise& job) {
  const int row = blockIdx.x * kNormaliseWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= job.rows) return;  // all threads of the warp or none
  const float* x = job.x + row * job.x_stride;
  float squares = 0.0f;
  for (int i = lane; i < job.width; i += 32) squares = fmaf(x[i], x[i], squares);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, offset);
  const float scale = 1.0f / sqrtf(squares / job.width + job.epsilon);
  O* y = static_cast<O*>(job.y) + static_cast<int64_t>(row) * job.width;
  for (int i = lane; i < job.width; i += 32) store(y + i, x[i] * scale);
}

}  // namespace vmp_cuda
