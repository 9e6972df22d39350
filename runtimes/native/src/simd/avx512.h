// AVX-512 (F, BW, DQ, VL): vectors of 16 channels. portable.h describes the functions.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace {

using Vec = __m512;
constexpr int64_t kWidth = 16;
constexpr int kScanStates = 16;  // states that the forward kernel keeps in registers
constexpr int kBackwardStates = 4;

inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
// On some CPUs a masked access takes several times as long as a plain one.
inline Vec load(const float* p, int64_t n) {
  return n == kWidth ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(first_lanes(n), p);
}
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void store(float* p, Vec v, int64_t n) {
  if (n == kWidth) {
    _mm512_storeu_ps(p, v);
  } else {
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
  }
}
inline Vec splat(float f) { return _mm512_set1_ps(f); }
inline Vec mul_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec min(Vec limit, Vec v) { return _mm512_min_ps(limit, v); }
inline Vec max(Vec limit, Vec v) { return _mm512_max_ps(limit, v); }
inline Vec abs(Vec v) { return _mm512_abs_ps(v); }

inline Vec reduce(Vec a, Vec hi, Vec lo, Vec& k) {
  k = _mm512_roundscale_ps(a * hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm512_fmadd_ps(a, lo, _mm512_fmsub_ps(a, hi, k));
}
inline Vec scale(Vec v, Vec k) { return _mm512_scalef_ps(v, k); }

// decay_exp2 of elementary.h, 2^(a * (hi + lo)), in fewer multiplications than the general way. A table gives the
// powers of sixteenths, by one shuffle. The remaining fraction is so small that a quadratic (our own minimax fit) is
// accurate within 5e-7.
#define VMP_OWN_DECAY_EXP2
// 2^(i / 16)
alignas(64) constexpr float kSixteenths[16] = {
    1.0f,        1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f, 1.29683959f, 1.35425556f,
    1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f, 1.68179286f, 1.75625217f, 1.8340081f,  1.91520655f};
constexpr float kRoundToSixteenth = 0x1.8p19f;  // the last bit of a sum with it is worth a sixteenth

inline Vec decay_exp2(Vec a, Vec hi, Vec lo) {
  const Vec rounded = mul_add(a, hi, splat(kRoundToSixteenth));
  const Vec k = rounded - splat(kRoundToSixteenth);
  const Vec r = _mm512_fmadd_ps(a, lo, _mm512_fmsub_ps(a, hi, k));
  const Vec sixteenth = _mm512_permutexvar_ps(_mm512_castps_si512(rounded), load(kSixteenths));
  const Vec power = _mm512_scalef_ps(sixteenth, k);  // uses the floor of k
  return mul_add(mul_add(splat(0.240226433f), r, splat(0.693187714f)) * r, power, power);
}

// decay_near of elementary.h, for products near zero. The bits of `rounded` are an integer and a number of sixteenths.
// Shifting them adds the integer to the exponent, but also the sixteenths; the table of powers has those subtracted, so
// that two integer operations make the whole power.
#define VMP_OWN_DECAY_NEAR
inline Vec decay_near(Vec a, Vec rate, Vec h) {
  const __m512i sixteenths = _mm512_load_si512(kSixteenths);
  const __m512i lifted = _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 19);
  const __m512i table = _mm512_sub_epi32(sixteenths, lifted);
  const Vec rounded = mul_add(a, rate, splat(kRoundToSixteenth));
  const Vec r = _mm512_fmsub_ps(a, rate, rounded - splat(kRoundToSixteenth));
  const __m512i bits = _mm512_castps_si512(rounded);
  const __m512i power = _mm512_add_epi32(_mm512_permutexvar_epi32(bits, table), _mm512_slli_epi32(bits, 19));
  const Vec decayed = _mm512_castsi512_ps(power) * h;
  return mul_add(mul_add(splat(0.240226433f), r, splat(0.693187714f)) * r, decayed, decayed);
}

inline bool all_within(Vec v, Vec limit) { return _mm512_cmp_ps_mask(v, limit, _CMP_LE_OQ) == 0xffff; }

inline Vec sum_lanes(const float* rows) {
  const auto fold32 = [](Vec a, Vec b) { return _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b); };
  const auto fold64 = [](Vec a, Vec b) {
    const __m512d p = _mm512_castps_pd(a), q = _mm512_castps_pd(b);
    return _mm512_castpd_ps(_mm512_unpacklo_pd(p, q)) + _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
  };
  const auto fold128 = [](Vec a, Vec b) { return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd); };
  const auto four = [&](const float* p) {
    return fold64(fold32(load(p), load(p + 16)), fold32(load(p + 32), load(p + 48)));
  };
  return fold128(fold128(four(rows), four(rows + 64)), fold128(four(rows + 128), four(rows + 192)));
}

}  // namespace
