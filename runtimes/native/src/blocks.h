// Helpers of the scan and convolution kernels: rows in scanned order, scratch memory, packed parameters.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

#if defined(__clang__)
#define VMP_UNROLL _Pragma("unroll")
#else
#define VMP_UNROLL _Pragma("GCC unroll 16")
#endif

namespace {

using vmp::ConvBackwardJob;
using vmp::ConvJob;
using vmp::ScanBackwardJob;
using vmp::ScanJob;

// The largest number of halvings that decay_near can compute. With more, the rounding of that number would show in the
// result.
constexpr float kNearOctaves = 8.0f;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows of an array in scanned order. A reverse scan starts at the last row and steps backwards.
template <typename T>
struct Rows {
  T* first;
  int64_t step;
  T* operator[](int64_t s) const { return first + s * step; }
};

template <typename T>
inline Rows<T> rows(T* first, int64_t step, int64_t length, bool reverse) {
  if (reverse) return {first + (length - 1) * step, -step};
  return {first, step};
}
inline Rows<const float> rows(const vmp_input& view, int64_t item, int64_t column, int64_t length, bool reverse) {
  return rows(view.data + item * view.batch_stride + column, view.row_stride, length, reverse);
}
inline Rows<float> rows(const vmp_output& view, int64_t item, int64_t column, int64_t length, bool reverse) {
  return rows(view.data + item * view.batch_stride + column, view.row_stride, length, reverse);
}

// One uncleared allocation from which pieces are taken. It is freed at the end of the scope.
class Scratch {
 public:
  Scratch(int64_t floats, int* status) {
    const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
    if (posix_memalign(&memory_, 64, bytes) != 0) {
      memory_ = nullptr;
      __atomic_store_n(status, VMP_ERROR_MEMORY, __ATOMIC_RELAXED);
    }
    next_ = static_cast<float*>(memory_);
  }
  ~Scratch() { free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  explicit operator bool() const { return memory_ != nullptr; }
  float* take(int64_t floats) {
    float* piece = next_;
    next_ += floats;
    return piece;
  }

 private:
  void* memory_ = nullptr;
  float* next_ = nullptr;
};

// The decay rates of one channel block; A, high and low are (states, kWidth). exp(delta A) is computed as
// 2^(delta (high + low)), where high + low is A log2(e) in twice the precision, so that the rounding error of the
// product does not grow with the product. `longest` is a delta from which on every decay is zero; limiting delta to it
// keeps the product in range. For a delta up to `near`, decay_near is accurate: it needs neither `low` nor a check of
// the range.
struct Rates {
  float *A, *high, *low;
  Vec longest, near;
};

inline void pack_rates(const float* A, int64_t states, int64_t lanes, Rates& to) {
  float longest[kWidth], near[kWidth];
  for (int64_t c = 0; c < kWidth; ++c) {
    float steepest = 0.0f;
    for (int64_t n = 0; n < states; ++n) {
      const float rate = c < lanes ? A[c * states + n] : 0.0f;
      const double in_base_2 = rate * 1.4426950408889634074;
      const float high = static_cast<float>(in_base_2);
      to.A[n * kWidth + c] = rate;
      to.high[n * kWidth + c] = high;
      to.low[n * kWidth + c] = static_cast<float>(in_base_2 - high);
      const float size = high < 0.0f ? -high : high;
      if (size > steepest) steepest = size;
    }
    longest[c] = steepest > 0.0f ? 2097152.0f / steepest : 3.0e38f;
    near[c] = steepest > 0.0f ? kNearOctaves / steepest : 3.0e38f;
  }
  to.longest = load(longest);
  to.near = load(near);
}

}  // namespace
