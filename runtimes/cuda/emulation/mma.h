// Replaces CUDA's header of this name. The first thread of a warp holds the whole fragment and does all the work. As on
// a GPU, code may access a fragment by these functions alone, and must wait at a barrier before it reads shared memory.
#pragma once

#include "cuda_fp16.h"
#include "cuda_runtime.h"

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int kM, int kN, int kK, typename T, typename Layout = void>
struct fragment {
  float value[kM][kN == kK ? kN : kK];  // (rows, columns) of the matrix, whatever its layout in memory
};

inline bool first_of_warp() { return emulation::current % 32 == 0; }

template <int kSize, typename T>
void fill_fragment(fragment<accumulator, kSize, kSize, kSize, T>& f, float v) {
  for (auto& row : f.value) {
    for (float& x : row) x = v;
  }
}

template <typename Use, int kSize, typename T, typename Layout>
void load_matrix_sync(fragment<Use, kSize, kSize, kSize, T, Layout>& f, const T* from, unsigned pitch) {
  constexpr bool kRows = std::is_same<Layout, row_major>::value;
  if (reinterpret_cast<uintptr_t>(from) % 32 || pitch % 8) std::abort();  // the alignment that a GPU requires
  if (!first_of_warp()) return;
  for (int i = 0; i < kSize; ++i) {
    for (int j = 0; j < kSize; ++j) f.value[i][j] = __half2float(kRows ? from[i * pitch + j] : from[j * pitch + i]);
  }
}

template <int kSize, typename T, typename LayoutA, typename LayoutB>
void mma_sync(fragment<accumulator, kSize, kSize, kSize, float>& d,
              const fragment<matrix_a, kSize, kSize, kSize, T, LayoutA>& a,
              const fragment<matrix_b, kSize, kSize, kSize, T, LayoutB>& b,
              const fragment<accumulator, kSize, kSize, kSize, float>& c) {
  if (!first_of_warp()) return;
  for (int i = 0; i < kSize; ++i) {
    float sums[kSize];
    for (int j = 0; j < kSize; ++j) sums[j] = c.value[i][j];
    for (int k = 0; k < kSize; ++k) {
      for (int j = 0; j < kSize; ++j) sums[j] += a.value[i][k] * b.value[k][j];
    }
    for (int j = 0; j < kSize; ++j) d.value[i][j] = sums[j];
  }
}

template <int kSize>
void store_matrix_sync(float* to, const fragment<accumulator, kSize, kSize, kSize, float>& f, unsigned pitch,
                       layout_t) {
  if (reinterpret_cast<uintptr_t>(to) % 32 || pitch % 4) std::abort();
  if (!first_of_warp()) return;
  for (int i = 0; i < kSize; ++i) {
    for (int j = 0; j < kSize; ++j) to[i * pitch + j] = f.value[i][j];
  }
}

}  // namespace wmma
}  // namespace nvcuda
