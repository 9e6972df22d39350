// The forward scan. A task walks one channel block (kWidth channels of one batch item) over the whole sequence, in
// chunks that stay in the first-level cache: elementwise work first, then the recurrence with its states in registers.
#pragma once

#include "blocks.h"
#include "elementary.h"

namespace {

constexpr int64_t kChunk = 64;

// A stretch of the sequence in scanned order. delta, u, y: (steps, kWidth); state: (states, kWidth).
struct Chunk {
  const float* delta;  // as far as Rates::longest
  const float* u;      // delta x
  Rows<const float> B, C;
  float* state;  // in: before the first step; out: after the last
  float* y;      // added to
  int64_t steps;
};

// Everything that the loop touches is a local variable: the compiler then keeps what fits in registers, and addresses
// the rest by constant offsets.
template <int kStates, bool kMasked>
void advance_states(const Chunk& chunk, const Rates& rates, int64_t n0) {
  Vec h[kStates], high[kStates], low[kStates];
  float* state = chunk.state + n0 * kWidth;
  VMP_UNROLL
  for (int n = 0; n < kStates; ++n) {
    h[n] = load(state + n * kWidth);
    high[n] = load(rates.high + (n0 + n) * kWidth);
    low[n] = load(rates.low + (n0 + n) * kWidth);
  }
  const float *deltas = chunk.delta, *us = chunk.u, *B = chunk.B.first + n0, *C = chunk.C.first + n0;
  float* ys = chunk.y;
  const int64_t B_step = chunk.B.step, C_step = chunk.C.step;
  for (int64_t left = chunk.steps; left > 0; --left) {
    const Vec delta = load(deltas), u = load(us);
    Vec y[2] = {load(ys), splat(0.0f)};  // two sums, half the latency
    VMP_UNROLL
    for (int n = 0; n < kStates; ++n) {
      const Vec decayed = decay_exp2(delta, high[n], low[n]) * h[n];
      h[n] = mul_add(u, splat(B[n]), decayed);
      y[n & 1] = mul_add(splat(C[n]), kMasked ? decayed : h[n], y[n & 1]);
    }
    store(ys, y[0] + y[1]);
    deltas += kWidth, us += kWidth, ys += kWidth, B += B_step, C += C_step;
  }
  VMP_UNROLL
  for (int n = 0; n < kStates; ++n) store(state + n * kWidth, h[n]);
}

template <int kStates, bool kMasked>
int64_t advance_groups(const Chunk& chunk, const Rates& rates, int64_t states, int64_t n0) {
  for (; n0 + kStates <= states; n0 += kStates) advance_states<kStates, kMasked>(chunk, rates, n0);
  if constexpr (kStates > 1) n0 = advance_groups<kStates / 2, kMasked>(chunk, rates, states, n0);
  return n0;
}

inline void advance(const Chunk& chunk, const Rates& rates, int64_t states, bool masked) {
  if (masked) {
    advance_groups<kScanStates, true>(chunk, rates, states, 0);
  } else {
    advance_groups<kScanStates, false>(chunk, rates, states, 0);
  }
}

struct Direction {
  const float* A;  // (channels, states)
  bool reverse, masked;
};

inline int directions_of(const vmp_scan& scan, bool bidirectional, Direction out[2]) {
  out[0] = {scan.A, !bidirectional && scan.reverse, !bidirectional && scan.mask};
  out[1] = {scan.A_b, true, scan.mask != 0};
  return bidirectional ? 2 : 1;
}

inline void start_state(const vmp_scan& scan, const float* first_x, int64_t lanes, float* state) {
  const Vec h = scan.first_input ? load(first_x, lanes) : splat(0.0f);
  for (int64_t n = 0; n < scan.states; ++n) store(state + n * kWidth, h);
}

// Scratch of one forward task.
struct ScanScratch {
  float *delta;  // (length, kWidth) in memory order: the second direction takes it from the first
  float *limited, *u, *y;  // (kChunk, kWidth)
  float* state;
  Rates rates;

  static int64_t size(const vmp_scan& scan) { return (scan.length + 3 * kChunk + 4 * scan.states) * kWidth; }
  ScanScratch(const vmp_scan& scan, Scratch& scratch)
      : delta(scratch.take(scan.length * kWidth)),
        limited(scratch.take(kChunk * kWidth)),
        u(scratch.take(kChunk * kWidth)),
        y(scratch.take(kChunk * kWidth)),
        state(scratch.take(scan.states * kWidth)),
        rates{scratch.take(scan.states * kWidth), scratch.take(scan.states * kWidth),
              scratch.take(scan.states * kWidth), Vec{}} {}
};

// One direction of one channel block. The first one computes delta, the last one adds skip term and gate.
void scan_direction(const ScanJob& job, const Direction& direction, bool is_first, bool is_last, int64_t item,
                    int64_t column, int64_t lanes, ScanScratch& scratch) {
  const vmp_scan& scan = *job.scan;
  const int64_t length = scan.length;
  const bool reverse = direction.reverse;
  const auto x = rows(scan.x, item, column, length, reverse), dt = rows(scan.dt, item, column, length, reverse);
  const auto B = rows(scan.B, item, 0, length, reverse), C = rows(scan.C, item, 0, length, reverse);
  const auto y = rows(job.y, item, column, length, reverse);
  const auto delta = rows(scratch.delta, kWidth, length, reverse);
  const bool gated = is_last && scan.z.data;
  const auto z = gated ? rows(scan.z, item, column, length, reverse) : x;
  const Vec bias = scan.dt_bias ? load(scan.dt_bias + column, lanes) : splat(0.0f);
  const Vec skip = is_last && scan.D ? load(scan.D + column, lanes) * splat(job.bidirectional ? 2.0f : 1.0f) : splat(0);

  pack_rates(direction.A + column * scan.states, scan.states, lanes, scratch.rates);
  start_state(scan, x[0], lanes, scratch.state);
  for (int64_t s0 = 0; s0 < length; s0 += kChunk) {
    const int64_t steps = smaller(kChunk, length - s0);
    for (int64_t i = 0; i < steps; ++i) {
      if (is_first) store(delta[s0 + i], vec_softplus(load(dt[s0 + i], lanes) + bias));
      const Vec d = load(delta[s0 + i]);
      store(scratch.limited + i * kWidth, min(scratch.rates.longest, d));
      store(scratch.u + i * kWidth, d * load(x[s0 + i], lanes));
      store(scratch.y + i * kWidth, splat(0.0f));
    }
    advance({scratch.limited, scratch.u, {B[s0], B.step}, {C[s0], C.step}, scratch.state, scratch.y, steps},
            scratch.rates, scan.states, direction.masked);
    if (direction.masked && s0 == 0) store(scratch.y, splat(0.0f));
    for (int64_t i = 0; i < steps; ++i) {
      Vec out = load(scratch.y + i * kWidth);
      if (!is_first) out += load(y[s0 + i], lanes);
      if (is_last && scan.D) out = mul_add(skip, load(x[s0 + i], lanes), out);
      if (gated) out *= vec_silu(load(z[s0 + i], lanes));
      store(y[s0 + i], out, lanes);
    }
  }
}

void scan_range(const ScanJob& job, int64_t begin, int64_t end) {
  const vmp_scan& scan = *job.scan;
  Scratch memory(ScanScratch::size(scan), job.status);
  if (!memory) return;
  ScanScratch scratch(scan, memory);
  Direction directions[2];
  const int count = directions_of(scan, job.bidirectional, directions);
  const int64_t blocks = (scan.channels + kWidth - 1) / kWidth;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t column = task % blocks * kWidth;
    const int64_t lanes = smaller(kWidth, scan.channels - column);
    for (int i = 0; i < count; ++i) {
      scan_direction(job, directions[i], i == 0, i == count - 1, task / blocks, column, lanes, scratch);
    }
  }
}

void map_decay(const float* in, float rate, float* out, int64_t n) {
  float packed[3][kWidth];
  Rates rates{packed[0], packed[1], packed[2], Vec{}};
  pack_rates(&rate, 1, 1, rates);
  const Vec high = splat(packed[1][0]), low = splat(packed[2][0]);
  float longest[kWidth];
  store(longest, rates.longest);
  map(in, out, n, [=](Vec v) { return decay_exp2(min(splat(longest[0]), v), high, low); });
}

}  // namespace
