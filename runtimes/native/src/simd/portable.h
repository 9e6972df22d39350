// The vector of CPUs without a header of their own: the compiler's generic vectors, no intrinsics.
//
// Every header of this folder gives the same functions to the algorithms, all of internal linkage: each instruction
// set is one translation unit with its own compiler flags, and nothing compiled for one may be linked into another.
#pragma once

#include <stdint.h>
#include <string.h>

namespace {

typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
constexpr int64_t kWidth = 4;       // channels to a vector
constexpr int kScanStates = 4;      // states that the forward kernel keeps in registers
constexpr int kBackwardStates = 4;  // the same for the backward kernel; a power of two

// Without n: all lanes. With n: the first n lanes are touched, the others read as zero.
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

inline Vec mul_add(Vec a, Vec b, Vec c) { return a * b + c; }  // fused or not

// A NaN in v comes through.
inline Vec min(Vec limit, Vec v) { return limit < v ? limit : v; }
inline Vec max(Vec limit, Vec v) { return limit > v ? limit : v; }
inline Vec abs(Vec v) { return (Vec)((Ints)v & 0x7fffffff); }

// The leading half of the significand: the product of two such numbers is exact.
inline Vec leading(Vec v) { return (Vec)((Ints)v & ~0xfff); }

// a * (hi + lo) = k + result, k whole, for products below 2^22; exact but for the last roundings.
inline Vec reduce(Vec a, Vec hi, Vec lo, Vec& k) {
  const Vec to_integer = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves no room for a fraction
  k = (a * hi + to_integer) - to_integer;
  const Vec a1 = leading(a), a2 = a - a1, hi1 = leading(hi), hi2 = hi - hi1;
  return (a1 * hi1 - k) + (a1 * hi2 + a2 * hi1) + (a2 * hi2 + a * lo);
}

inline Vec power_of_two(Ints k) { return (Vec)((k + 127) << 23); }
// v * 2^k for whole k <= 0 of any size; may flush what would be subnormal.
inline Vec scale_down(Vec v, Vec k) { return v * power_of_two(__builtin_convertvector(max(splat(-127.0f), k), Ints)); }
// v * 2^k for whole k in -252..252, subnormal and overflowing results included.
inline Vec scale(Vec v, Vec k) {
  const Ints whole = __builtin_convertvector(k, Ints), half = whole >> 1;
  return v * power_of_two(half) * power_of_two(whole - half);
}

// v * 2^k, where `whole` is 1.5 * 2^23 + k and nothing leaves the normal range.
inline Vec add_exponent(Vec v, Vec whole) { return (Vec)((Ints)v + ((Ints)whole << 23)); }

// Whether v <= limit in every lane; not where either is a NaN.
inline bool all_within(Vec v, Vec limit) {
  const Ints within = v <= limit;
  return within[0] && within[1] && within[2] && within[3];
}

// Lane i of the result is the sum of the i-th of kWidth consecutive vectors.
inline Vec sum_lanes(const float* rows) {
  Vec sums = {};
  for (int i = 0; i < kWidth; ++i) {
    const float* row = rows + i * kWidth;
    sums[i] = (row[0] + row[1]) + (row[2] + row[3]);
  }
  return sums;
}

}  // namespace
