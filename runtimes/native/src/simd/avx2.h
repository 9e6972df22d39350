// AVX2 with FMA: vectors of 8 channels. portable.h describes the functions.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace {

using Vec = __m256;
constexpr int64_t kWidth = 8;
constexpr int kScanStates = 8;
constexpr int kBackwardStates = 4;

inline __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec load(const float* p, int64_t n) {
  return n == kWidth ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(n));
}
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline void store(float* p, Vec v, int64_t n) {
  if (n == kWidth) {
    _mm256_storeu_ps(p, v);
  } else {
    _mm256_maskstore_ps(p, first_lanes(n), v);
  }
}
inline Vec splat(float f) { return _mm256_set1_ps(f); }
inline Vec mul_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec min(Vec limit, Vec v) { return _mm256_min_ps(limit, v); }
inline Vec max(Vec limit, Vec v) { return _mm256_max_ps(limit, v); }
inline Vec abs(Vec v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

inline Vec reduce(Vec a, Vec hi, Vec lo, Vec& k) {
  k = _mm256_round_ps(a * hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm256_fmadd_ps(a, lo, _mm256_fmsub_ps(a, hi, k));
}
inline Vec power_of_two(__m256i k) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k, _mm256_set1_epi32(127)), 23));
}
inline Vec scale_down(Vec v, Vec k) { return v * power_of_two(_mm256_cvtps_epi32(max(splat(-127.0f), k))); }
inline Vec scale(Vec v, Vec k) {
  const __m256i whole = _mm256_cvtps_epi32(k), half = _mm256_srai_epi32(whole, 1);
  return v * power_of_two(half) * power_of_two(_mm256_sub_epi32(whole, half));
}

inline Vec add_exponent(Vec v, Vec whole) {
  const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(whole), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), shifted));
}

inline bool all_within(Vec v, Vec limit) { return _mm256_movemask_ps(_mm256_cmp_ps(v, limit, _CMP_LE_OQ)) == 0xff; }

inline Vec sum_lanes(const float* rows) {
  const auto four = [](const float* p) {
    return _mm256_hadd_ps(_mm256_hadd_ps(load(p), load(p + 8)), _mm256_hadd_ps(load(p + 16), load(p + 24)));
  };
  const Vec a = four(rows), b = four(rows + 32);
  return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
}

}  // namespace
