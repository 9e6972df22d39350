// Matrix products of a model's linear layers: y (m, n) = a (m, k) @ w (n, k)^T + bias + residual. Device code alone.
//
// fp16 uses tensor cores with float32 sums, float32 uses the ordinary cores. The layers of a small model are narrow and
// its sequences short, so that the number of blocks matters most: the tile of a block has 64, 32 or 16 rows. kThreads
// threads walk along k and load the numbers of the next step while they multiply those of this step.
#pragma once

#include <mma.h>

#include "elementary.cuh"

namespace vmp_cuda {

constexpr int kThreads = 128;
constexpr int kTileColumns = 64;

struct Gemm {
  const void* a;          // (m, k) of type T; a_stride elements from one row to the next
  const void* w;          // (n, k) of type T
  const float* bias;      // (n) or null
  const float* residual;  // (m, n) or null
  void* y;                // (m, n) of type O
  int64_t a_stride;
  int m, n, k;
};

__host__ __device__ constexpr int larger(int a, int b) { return a > b ? a : b; }

template <typename O>
__device__ void finish(const Gemm& g, int row, int column, float sum) {
  if (row >= g.m || column >= g.n) return;
  const int64_t at = static_cast<int64_t>(row) * g.n + column;
  if (g.bias) sum += g.bias[column];
  if (g.residual) sum += g.residual[at];
  store(static_cast<O*>(g.y) + at, sum);
}

// ------------------------------------------------------------------------------------------------- on tensor cores

constexpr int kHalfStep = 32;              // columns of k in one step
constexpr int kHalfPitch = kHalfStep + 8;  // of a row in shared memory: 16-byte aligned, and rows begin in other banks
constexpr int kFloatPitch = kTileColumns + 4;

struct alignas(16) Halves {
  __half value[8];
};

// The rows of a or w of one step, on their way from global to shared memory. Rows and columns past the end are zero.
template <int kRows>
struct Rows {
  static constexpr int kPieces = kRows * kHalfStep / 8, kEach = (kPieces + kThreads - 1) / kThreads;
  Halves piece[kEach];

  // kWhole: rows begin at a multiple of 16 bytes and k is a multiple of 8, so that one load takes eight numbers.
  template <bool kWhole>
  __device__ void load(const __half* data, int64_t stride, int row0, int rows, int k0, int k) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int index = threadIdx.x + i * kThreads, row = row0 + index / (kHalfStep / 8);
      const int column = k0 + index % (kHalfStep / 8) * 8;
      const __half* from = data + row * stride + column;
      const bool inside = index < kPieces && row < rows;
      if (kWhole && inside && column < k) {
        piece[i] = *reinterpret_cast<const Halves*>(from);
        continue;
      }
#pragma unroll
      for (int j = 0; j < 8; ++j)
        piece[i].value[j] = !kWhole && inside && column + j < k ? from[j] : __float2half(0.0f);
    }
  }

  __device__ void put(__half* shared) const {  // (kRows, kHalfPitch)
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int index = threadIdx.x + i * kThreads;
      if (index >= kPieces) break;
      __half* to = shared + index / (kHalfStep / 8) * kHalfPitch + index % (kHalfStep / 8) * 8;
      *reinterpret_cast<Halves*>(to) = piece[i];
    }
  }
};

template <int kRows>
__host__ __device__ constexpr int gemm_half_bytes() {
  return larger(2 * (kRows + kTileColumns) * kHalfPitch * 2, kRows * kFloatPitch * 4);
}

// Compute one tile in fp16. `memory` has gemm_half_bytes<kRows>() bytes and is aligned to 32. blockIdx.x is the tile's
// column, blockIdx.y its row.
template <typename O, int kRows, bool kWhole>
__device__ void gemm_half(const Gemm& g, void* memory) {
  using namespace nvcuda;
  constexpr int kWarpsDown = kRows >= 32 ? 2 : 1, kWarpsAcross = kThreads / 32 / kWarpsDown;
  constexpr int kDown = kRows / kWarpsDown / 16,
                kAcross = kTileColumns / kWarpsAcross / 16;  // tiles of 16x16 of a warp
  constexpr int kStage = (kRows + kTileColumns) * kHalfPitch;
  __half* stages = static_cast<__half*>(memory);  // two stages, each with the rows of a, then those of w
  const int row0 = blockIdx.y * kRows, column0 = blockIdx.x * kTileColumns, warp = threadIdx.x / 32;
  const int down = warp / kWarpsAcross * kDown * 16, across = warp % kWarpsAcross * kAcross * 16;
  const auto* a = static_cast<const __half*>(g.a);
  const auto* w = static_cast<const __half*>(g.w);
  Rows<kRows> next_a;
  Rows<kTileColumns> next_w;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[kDown][kAcross];
#pragma unroll
  for (int i = 0; i < kDown * kAcross; ++i) wmma::fill_fragment(sums[i / kAcross][i % kAcross], 0.0f);

  next_a.template load<kWhole>(a, g.a_stride, row0, g.m, 0, g.k);
  next_w.template load<kWhole>(w, g.k, column0, g.n, 0, g.k);
  next_a.put(stages);
  next_w.put(stages + kRows * kHalfPitch);
  __syncthreads();
  for (int k0 = 0, stage = 0; k0 < g.k; k0 += kHalfStep, stage ^= 1) {
    const __half* current = stages + stage * kStage;
    const bool more = k0 + kHalfStep < g.k;
    if (more) {
      next_a.template load<kWhole>(a, g.a_stride, row0, g.m, k0 + kHalfStep, g.k);
      next_w.template load<kWhole>(w, g.k, column0, g.n, k0 + kHalfStep, g.k);
    }
#pragma unroll
    for (int kk = 0; kk < kHalfStep; kk += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> left[kDown];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        wmma::load_matrix_sync(left[i], current + (down + 16 * i) * kHalfPitch + kk, kHalfPitch);
      }
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> right;
        wmma::load_matrix_sync(right, current + (kRows + across + 16 * j) * kHalfPitch + kk, kHalfPitch);
#pragma unroll
        for (int i = 0; i < kDown; ++i) wmma::mma_sync(sums[i][j], left[i], right, sums[i][j]);
      }
    }
    if (more) {
      __half* next = stages + (stage ^ 1) * kStage;
      next_a.put(next);
      next_w.put(next + kRows * kHalfPitch);
    }
    __syncthreads();
  }

  // It is not documented which thread holds which sum of a fragment, so that the sums go through shared memory.
  float* result = static_cast<float*>(memory);  // (kRows, kFloatPitch)
#pragma unroll
  for (int i = 0; i < kDown; ++i) {
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      float* to = result + (down + 16 * i) * kFloatPitch + across + 16 * j;
      wmma::store_matrix_sync(to, sums[i][j], kFloatPitch, wmma::mem_row_major);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRows * kTileColumns; i += kThreads) {
    const int row = i / kTileColumns, column = i % kTileColumns;
    finish<O>(g, row0 + row, column0 + column, result[row * kFloatPitch + column]);
  }
}

// ------------------------------------------------------------------------------------------------------ in float32

constexpr int kFloatStep = 16;  // columns of k in one step
constexpr int kThreadColumns = 4;

template <int kRows>
__host__ __device__ constexpr int gemm_float_bytes() {
  return kFloatStep * (kRows + 4 + kFloatPitch) * 4;
}

// Compute one tile in float32. `memory` has gemm_float_bytes<kRows>() bytes. blockIdx.x is the tile's column,
// blockIdx.y its row.
template <typename O, int kRows>
__device__ void gemm_float(const Gemm& g, void* memory) {
  constexpr int kPitch = kRows + 4, kThreadRows = kRows * kTileColumns / kThreads / kThreadColumns;
  float* a = static_cast<float*>(memory);  // (kFloatStep, kPitch)
  float* w = a + kFloatStep * kPitch;      // (kFloatStep, kFloatPitch)
  const int row0 = blockIdx.y * kRows, column0 = blockIdx.x * kTileColumns;
  const int column = threadIdx.x % (kTileColumns / kThreadColumns) * kThreadColumns;
  const int row = threadIdx.x / (kTileColumns / kThreadColumns) * kThreadRows;
  float sums[kThreadRows][kThreadColumns] = {};
  for (int k0 = 0; k0 < g.k; k0 += kFloatStep) {
    for (int i = threadIdx.x; i < (kRows + kTileColumns) * kFloatStep; i += kThreads) {
      const int k = k0 + i % kFloatStep, at = i / kFloatStep;
      const bool left = at < kRows;
      const int line = left ? row0 + at : column0 + at - kRows;
      float* to = left ? a + i % kFloatStep * kPitch + at : w + i % kFloatStep * kFloatPitch + at - kRows;
      const float* from = left ? static_cast<const float*>(g.a) + line * g.a_stride
                               : static_cast<const float*>(g.w) + static_cast<int64_t>(line) * g.k;
      *to = k < g.k && line < (left ? g.m : g.n) ? from[k] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kFloatStep; ++k) {
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
        for (int j = 0; j < kThreadColumns; ++j) {
          sums[i][j] = fmaf(a[k * kPitch + row + i], w[k * kFloatPitch + column + j], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
#pragma unroll
    for (int j = 0; j < kThreadColumns; ++j) finish<O>(g, row0 + row + i, column0 + column + j, sums[i][j]);
  }
}

template <typename T, typename O, int kRows, bool kWhole>
__device__ void gemm(const Gemm& g, void* memory) {
  if constexpr (sizeof(T) == 2) {
    gemm_half<O, kRows, kWhole>(g, memory);
  } else {
    gemm_float<O, kRows>(g, memory);
  }
}

template <typename T, int kRows>
__host__ __device__ constexpr int gemm_bytes() {
  return sizeof(T) == 2 ? gemm_half_bytes<kRows>() : gemm_float_bytes<kRows>();
}

}  // namespace vmp_cuda
