// NEON of 64-bit Arm: vectors of 4 channels. portable.h describes the functions.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

namespace {

using Vec = float32x4_t;
constexpr int64_t kWidth = 4;
constexpr int kScanStates = 8;
constexpr int kBackwardStates = 4;

inline Vec load(const float* p) { return vld1q_f32(p); }
inline Vec load(const float* p, int64_t n) {
  if (n == kWidth) return vld1q_f32(p);
  float lanes[4] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return vld1q_f32(lanes);
}
inline void store(float* p, Vec v) { vst1q_f32(p, v); }
inline void store(float* p, Vec v, int64_t n) {
  if (n == kWidth) return vst1q_f32(p, v);
  float lanes[4];
  vst1q_f32(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
inline Vec splat(float f) { return vdupq_n_f32(f); }
inline Vec mul_add(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
inline Vec min(Vec limit, Vec v) { return vminq_f32(limit, v); }
inline Vec max(Vec limit, Vec v) { return vmaxq_f32(limit, v); }
inline Vec abs(Vec v) { return vabsq_f32(v); }

inline Vec reduce(Vec a, Vec hi, Vec lo, Vec& k) {
  k = vrndnq_f32(a * hi);
  return vfmaq_f32(vfmaq_f32(-k, a, hi), a, lo);
}
inline Vec power_of_two(int32x4_t k) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k, vdupq_n_s32(127)), 23)); }
inline Vec scale_down(Vec v, Vec k) { return v * power_of_two(vcvtq_s32_f32(max(splat(-127.0f), k))); }
inline Vec scale(Vec v, Vec k) {
  const int32x4_t whole = vcvtq_s32_f32(k), half = vshrq_n_s32(whole, 1);
  return v * power_of_two(half) * power_of_two(vsubq_s32(whole, half));
}

inline Vec add_exponent(Vec v, Vec whole) {
  const int32x4_t shifted = vshlq_n_s32(vreinterpretq_s32_f32(whole), 23);
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(v), shifted));
}

inline bool all_within(Vec v, Vec limit) { return vminvq_u32(vcleq_f32(v, limit)) != 0; }

inline Vec sum_lanes(const float* rows) {
  return vpaddq_f32(vpaddq_f32(load(rows), load(rows + 4)), vpaddq_f32(load(rows + 8), load(rows + 12)));
}

}  // namespace
