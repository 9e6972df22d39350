// exp, softplus and SiLU over the vector type of the including translation unit. The largest relative error is below
// 6e-7. The polynomials are our own minimax fits, by iteratively reweighted least squares in float64.
#pragma once

namespace {

constexpr float kLog2eHigh = 1.44269502162933349609375f;  // log2(e) = high + low
constexpr float kLog2eLow = 1.92596299112661746887e-8f;

// Return 2^r for r in [-0.5, 0.5]. The result at 0 is exactly 1.
inline Vec exp2_fraction(Vec r) {
  Vec p = mul_add(splat(0.00132647273f), r, splat(0.00967151299f));
  p = mul_add(p, r, splat(0.0555073358f));
  p = mul_add(p, r, splat(0.240222424f));
  p = mul_add(p, r, splat(0.693147004f));
  return mul_add(p, r, splat(1.0f));
}

// Return 2^(a * (hi + lo)) for products from -2^21 to 0.
#ifndef VMP_OWN_DECAY_EXP2
inline Vec decay_exp2(Vec a, Vec hi, Vec lo) {
  Vec k;
  const Vec r = reduce(a, hi, lo, k);
  return scale_down(exp2_fraction(r), k);
}
#endif

// Return h * 2^(a * rate) for products from -kNearOctaves (blocks.h) to 0.
#ifndef VMP_OWN_DECAY_NEAR
inline Vec decay_near(Vec a, Vec rate, Vec h) {
  const Vec to_integer = splat(12582912.0f);  // 1.5 * 2^23: the last bits of the sum are the integer
  const Vec rounded = mul_add(a, rate, to_integer);
  const Vec r = mul_add(a, rate, to_integer - rounded);
  return add_exponent(exp2_fraction(r), rounded) * h;
}
#endif

inline Vec vec_exp(Vec v) {
  Vec k;
  v = min(splat(89.0f), max(splat(-104.0f), v));  // the results at the limits are infinity and zero
  const Vec r = reduce(v, splat(kLog2eHigh), splat(kLog2eLow), k);
  return scale(exp2_fraction(r), k);
}

// Return log(1 + w) for w in [0, 1], computed as 2 atanh(w / (2 + w)), whose relative error is small for tiny w, too.
inline Vec vec_log1p(Vec w) {
  const Vec s = w / (w + splat(2.0f));
  const Vec q = s * s;
  Vec p = mul_add(splat(0.140059978f), q, splat(0.140009016f));
  p = mul_add(p, q, splat(0.200107634f));
  p = mul_add(p, q, splat(0.333332092f));
  const Vec twice = s + s;
  return mul_add(twice * q, p, twice);
}

inline Vec vec_softplus(Vec v) {
  const Vec zero = splat(0.0f);
  return max(zero, v) + vec_log1p(vec_exp(zero - abs(v)));
}

inline Vec vec_sigmoid(Vec v) { return splat(1.0f) / (splat(1.0f) + vec_exp(splat(0.0f) - v)); }
inline Vec vec_silu(Vec v) { return v / (splat(1.0f) + vec_exp(splat(0.0f) - v)); }

// Return d silu(v) / dv. `sigmoid` is sigmoid(v).
inline Vec silu_slope(Vec v, Vec sigmoid) { return sigmoid * mul_add(v, splat(1.0f) - sigmoid, splat(1.0f)); }

template <typename Function>
inline void map(const float* in, float* out, int64_t n, Function function) {
  for (int64_t i = 0; i < n; i += kWidth) {
    const int64_t lanes = n - i < kWidth ? n - i : kWidth;
    store(out + i, function(load(in + i, lanes)), lanes);
  }
}

void map_exp(const float* in, float* out, int64_t n) { map(in, out, n, vec_exp); }
void map_softplus(const float* in, float* out, int64_t n) { map(in, out, n, vec_softplus); }
void map_silu(const float* in, float* out, int64_t n) { map(in, out, n, vec_silu); }

}  // namespace
