// Vectors for CPUs that have no header of their own here, by the compiler's generic vectors without intrinsics.
//
// Every header of this folder defines the same functions for the algorithms. All have internal linkage: each
// instruction set is one translation unit with its own compiler flags, and code compiled for one set must not be linked
// into another.
#pragma once

#include <stdint.h>
#include <string.h>

namespace {

typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
constexpr int64_t kWidth = 4;       // channels in a vector
constexpr int kScanStates = 4;      // states that the forward kernel keeps in registers
constexpr int kBackwardStates = 4;  // the same for the backward kernel; a power of two

// Without n, all lanes are accessed. With n, only the first n lanes are; a load sets the others to zero.
inline Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const float* p, int64_t n) {
  if (n == kWidth) return load(p);
  Vec v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }
inline void store(float* p, Vec v, int64_t n) {
  if (n == kWidth) return store(p, v);
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}
inline Vec splat(float f) { return Vec{f, f, f, f}; }

inline Vec mul_add(Vec a, Vec b, Vec c) { return a * b + c; }  // may be fused or not

// If v is a NaN, so is the result.
inline Vec min(Vec limit, Vec v) { return limit < v ? limit : v; }
inline Vec max(Vec limit, Vec v) { return limit > v ? limit : v; }
inline Vec abs(Vec v) { return (Vec)((Ints)v & 0x7fffffff); }

// Return v with the leading half of its significand. The product of two such numbers is exact.
inline Vec leading(Vec v) { return (Vec)((Ints)v & ~0xfff); }

// Split a * (hi + lo) into an integer k and the result, for products below 2^22. All is exact but the last roundings.
inline Vec reduce(Vec a, Vec hi, Vec lo, Vec& k) {
  const Vec to_integer = splat(12582912.0f);  // 1.5 * 2^23: the sum has no bits for a fraction
  k = (a * hi + to_integer) - to_integer;
  const Vec a1 = leading(a), a2 = a - a1, hi1 = leading(hi), hi2 = hi - hi1;
  return (a1 * hi1 - k) + (a1 * hi2 + a2 * hi1) + (a2 * hi2 + a * lo);
}

inline Vec power_of_two(Ints k) { return (Vec)((k + 127) << 23); }
// Return v * 2^k for any integer k <= 0. Subnormal results may become zero.
inline Vec scale_down(Vec v, Vec k) { return v * power_of_two(__builtin_convertvector(max(splat(-127.0f), k), Ints)); }
// Return v * 2^k for an integer k from -252 to 252; subnormal and overflowing results are right, too.
inline Vec scale(Vec v, Vec k) {
  const Ints whole = __builtin_convertvector(k, Ints), half = whole >> 1;
  return v * power_of_two(half) * power_of_two(whole - half);
}

// Return v * 2^k, where `whole` is 1.5 * 2^23 + k. Arguments and results must be in the normal range.
inline Vec add_exponent(Vec v, Vec whole) { return (Vec)((Ints)v + ((Ints)whole << 23)); }

// Return whether v <= limit in every lane; false if either is a NaN.
inline bool all_within(Vec v, Vec limit) {
  const Ints within = v <= limit;
  return within[0] && within[1] && within[2] && within[3];
}

// Sum the lanes of kWidth consecutive vectors. Lane i of the result is the sum of the i-th vector.
inline Vec sum_lanes(const float* rows) {
  Vec sums = {};
  for (int i = 0; i < kWidth; ++i) {
    const float* row = rows + i * kWidth;
    sums[i] = (row[0] + row[1]) + (row[2] + row[3]);
  }
  return sums;
}

}  // namespace
