// The gradient of the scan. It recomputes the states instead of storing them: one sweep in scanned order stores the
// state at the start of every chunk. Then, from the last chunk to the first, the states of a chunk are computed again
// and the adjoint runs against the scan.
//
// Let a = exp(delta A), u = delta x, e_t = a_t h_{t-1}, h_t = e_t + u_t B_t, and g the gradient of the state term of y.
//   adjoint of e:   Ge = carry + C g
//   adjoint of h:   Gh = carry + C g, or carry in a masked scan
//   next carry:     Ge a
//   gradients:      dB = Gh u, dC = g h (masked: g e), du = sum_n Gh B, ddelta = sum_n Ge e A, dA = sum_t Ge e delta
// A masked scan contributes nothing at its first step, where g is therefore zero.
#pragma once

#include "scan.h"

namespace {

constexpr int64_t kBackwardChunk = 32;  // two tiles (steps, states, channels) fit into the first-level cache

// A chunk in scanned order. delta, u, g, du and ddelta are (steps, kWidth); no delta is above `Rates::longest`.
struct BackwardChunk {
  const float *delta, *u, *g;
  Rows<const float> B, C;
  Rows<float> grad_B, grad_C;  // (steps, states): sums that the chunk adds to
  const float* state;          // (states, kWidth), before the first step
  float* carry;   // (states, kWidth), adjoint of the state: on entry after the last step, on return before the first
  float* grad_A;  // (states, kWidth): a sum that the chunk adds to
  Rows<float> du, ddelta;  // sums that the chunk adds to
  float *tile_a, *tile_e;  // scratch memory, (kBackwardChunk, kBackwardStates, kWidth)
  int64_t steps;
};

// Sum a tile (steps, kStates, kWidth) over its lanes, and add the sums to columns n0 .. of the rows `to`.
template <int kStates>
void add_lane_sums(const float* tile, int64_t steps, const Rows<float>& to, int64_t n0) {
  float sums[kBackwardChunk * kStates];
  const int64_t count = steps * kStates;
  for (int64_t i = 0; i < count; i += kWidth) store(sums + i, sum_lanes(tile + i * kWidth));
  for (int64_t s = 0; s < steps; ++s) {
    float* row = to[s] + n0;
    for (int n = 0; n < kStates; ++n) row[n] += sums[s * kStates + n];
  }
}

// Recompute kStates states from n0 on over a chunk, then walk the chunk backwards and add up the gradients.
template <int kStates, bool kMasked>
void retreat_states(const BackwardChunk& chunk, const Rates& rates, int64_t n0) {
  static_assert(kBackwardChunk * kStates % kWidth == 0, "sum_lanes takes kWidth vectors at once");
  const int64_t at = n0 * kWidth;
  Vec h[kStates];
  VMP_UNROLL
  for (int n = 0; n < kStates; ++n) h[n] = load(chunk.state + at + n * kWidth);
  for (int64_t s = 0; s < chunk.steps; ++s) {
    const Vec delta = load(chunk.delta + s * kWidth), u = load(chunk.u + s * kWidth);
    const float* B = chunk.B[s] + n0;
    VMP_UNROLL
    for (int n = 0; n < kStates; ++n) {
      const int64_t slot = (s * kStates + n) * kWidth;
      const Vec a = decay_exp2(delta, load(rates.high + at + n * kWidth), load(rates.low + at + n * kWidth));
      const Vec e = a * h[n];
      h[n] = mul_add(u, splat(B[n]), e);
      store(chunk.tile_a + slot, a);
      store(chunk.tile_e + slot, e);
    }
  }

  Vec carry[kStates], grad_A[kStates];
  VMP_UNROLL
  for (int n = 0; n < kStates; ++n) {
    carry[n] = load(chunk.carry + at + n * kWidth);
    grad_A[n] = load(chunk.grad_A + at + n * kWidth);
  }
  for (int64_t s = chunk.steps - 1; s >= 0; --s) {
    const Vec delta = load(chunk.delta + s * kWidth), u = load(chunk.u + s * kWidth), g = load(chunk.g + s * kWidth);
    const float *B = chunk.B[s] + n0, *C = chunk.C[s] + n0;
    Vec du = load(chunk.du[s]), ddelta = load(chunk.ddelta[s]);
    VMP_UNROLL
    for (int n = 0; n < kStates; ++n) {
      const int64_t slot = (s * kStates + n) * kWidth;
      const Vec a = load(chunk.tile_a + slot), e = load(chunk.tile_e + slot);
      const Vec grad_e = mul_add(splat(C[n]), g, carry[n]);
      const Vec grad_h = kMasked ? carry[n] : grad_e;
      const Vec visible = kMasked ? e : mul_add(u, splat(B[n]), e);
      const Vec slope = grad_e * e;
      du = mul_add(grad_h, splat(B[n]), du);
      ddelta = mul_add(slope, load(rates.A + at + n * kWidth), ddelta);
      grad_A[n] = mul_add(slope, delta, grad_A[n]);
      carry[n] = grad_e * a;
      store(chunk.tile_a + slot, grad_h * u);  // reuse the tiles for the shares of dB and dC
      store(chunk.tile_e + slot, g * visible);
    }
    store(chunk.du[s], du);
    store(chunk.ddelta[s], ddelta);
  }
  VMP_UNROLL
  for (int n = 0; n < kStates; ++n) {
    store(chunk.carry + at + n * kWidth, carry[n]);
    store(chunk.grad_A + at + n * kWidth, grad_A[n]);
  }
  add_lane_sums<kStates>(chunk.tile_a, chunk.steps, chunk.grad_B, n0);
  add_lane_sums<kStates>(chunk.tile_e, chunk.steps, chunk.grad_C, n0);
}

// Walk the states in groups of kStates, then the rest in smaller groups. Return the number of states done.
template <int kStates, bool kMasked>
int64_t retreat_groups(const BackwardChunk& chunk, const Rates& rates, int64_t states, int64_t n0) {
  for (; n0 + kStates <= states; n0 += kStates) retreat_states<kStates, kMasked>(chunk, rates, n0);
  if constexpr (kStates > 1) n0 = retreat_groups<kStates / 2, kMasked>(chunk, rates, states, n0);
  return n0;
}

inline void retreat(const BackwardChunk& chunk, const Rates& rates, int64_t states, bool masked) {
  if (masked) {
    retreat_groups<kBackwardStates, true>(chunk, rates, states, 0);
  } else {
    retreat_groups<kBackwardStates, false>(chunk, rates, states, 0);
  }
}

// Scratch memory of one backward task. Arrays of the sequence's length are in memory order.
struct BackwardScratch {
  float *delta, *g, *y, *du, *ddelta;  // (length, kWidth)
  float* starts;                       // (chunks, states, kWidth): the state before each chunk, in scanned order
  float *limited, *u, *visible_g;      // (kBackwardChunk, kWidth)
  float *state, *carry, *grad_A;       // (states, kWidth)
  float *tile_a, *tile_e;
  Rates rates;

  static int64_t chunks(const vmp_scan& scan) { return (scan.length + kBackwardChunk - 1) / kBackwardChunk; }
  static int64_t size(const vmp_scan& scan) {
    const int64_t vectors = 5 * scan.length + chunks(scan) * scan.states + 3 * kBackwardChunk + 6 * scan.states +
                            2 * kBackwardChunk * kBackwardStates;
    return vectors * kWidth;
  }
  BackwardScratch(const vmp_scan& scan, Scratch& scratch) {
    for (float** piece : {&delta, &g, &y, &du, &ddelta}) *piece = scratch.take(scan.length * kWidth);
    starts = scratch.take(chunks(scan) * scan.states * kWidth);
    for (float** piece : {&limited, &u, &visible_g}) *piece = scratch.take(kBackwardChunk * kWidth);
    for (float** piece : {&state, &carry, &grad_A, &rates.A, &rates.high, &rates.low}) {
      *piece = scratch.take(scan.states * kWidth);
    }
    for (float** piece : {&tile_a, &tile_e}) {
      *piece = scratch.take(kBackwardChunk * kBackwardStates * kWidth);
      // add_lane_sums reads past the end of a short last chunk
      memset(*piece, 0, kBackwardChunk * kBackwardStates * kWidth * sizeof(float));
    }
  }
};

// The gradients of one channel block of one batch item.
struct BackwardBlock {
  const ScanBackwardJob& job;
  const vmp_scan& scan;
  int64_t item, column, lanes;
  float *grad_B, *grad_C;  // (length, states): sums that the block adds to
  BackwardScratch& scratch;

  Vec bias() const { return scan.dt_bias ? load(scan.dt_bias + column, lanes) : splat(0.0f); }
  template <typename View>
  auto walk(const View& view, bool reverse = false) const {
    return rows(view, item, column, scan.length, reverse);
  }

  // Compute delta and the gradient of the state term before the gate, and clear the sums.
  void prepare() const {
    const auto dt = walk(scan.dt), grad_y = walk(job.grad_y), z = scan.z.data ? walk(scan.z) : dt;
    for (int64_t t = 0; t < scan.length; ++t) {
      Vec g = load(grad_y[t], lanes);
      if (scan.z.data) g *= vec_silu(load(z[t], lanes));
      store(scratch.g + t * kWidth, g);
      store(scratch.delta + t * kWidth, vec_softplus(load(dt[t], lanes) + bias()));
      for (float* sum : {scratch.y, scratch.du, scratch.ddelta}) store(sum + t * kWidth, splat(0.0f));
    }
  }

  void load_chunk(const Direction& direction, int64_t s0, int64_t steps) const {
    const auto x = walk(scan.x, direction.reverse);
    const auto delta = rows(scratch.delta, kWidth, scan.length, direction.reverse);
    const auto g = rows(scratch.g, kWidth, scan.length, direction.reverse);
    for (int64_t i = 0; i < steps; ++i) {
      const Vec d = load(delta[s0 + i]);
      store(scratch.limited + i * kWidth, min(scratch.rates.longest, d));
      store(scratch.u + i * kWidth, d * load(x[s0 + i], lanes));
      store(scratch.visible_g + i * kWidth, load(g[s0 + i]));
    }
    if (direction.masked && s0 == 0 && !direction.carried) store(scratch.visible_g, splat(0.0f));
  }

  // Fill `starts`, and add this direction's scan to y, which the gradient of the gate needs.
  void sweep(const Direction& direction, const float* given) const {
    const bool reverse = direction.reverse;
    const auto B = rows(scan.B, item, 0, scan.length, reverse), C = rows(scan.C, item, 0, scan.length, reverse);
    const auto y = rows(scratch.y, kWidth, scan.length, reverse);
    const int64_t state_size = scan.states * kWidth;
    start_state(scan, given, walk(scan.x, reverse)[0], lanes, scratch.state);
    for (int64_t s0 = 0; s0 < scan.length; s0 += kBackwardChunk) {
      const int64_t steps = smaller(kBackwardChunk, scan.length - s0);
      memcpy(scratch.starts + s0 / kBackwardChunk * state_size, scratch.state, state_size * sizeof(float));
      load_chunk(direction, s0, steps);
      const Chunk chunk{{scratch.limited, kWidth},
                        {scratch.u, kWidth},
                        {B[s0], B.step},
                        {C[s0], C.step},
                        scratch.state,
                        {y[s0], y.step},
                        steps,
                        s0 == 0 && !direction.carried};
      advance(chunk, scratch.rates, scan.states, direction.masked);
    }
  }

  // Walk the chunks from the last to the first. `carry` is the adjoint of the last state, and in the end that of the
  // initial state.
  void walk_back(const Direction& direction) const {
    const bool reverse = direction.reverse;
    const int64_t length = scan.length, states = scan.states;
    const auto B = rows(scan.B, item, 0, length, reverse), C = rows(scan.C, item, 0, length, reverse);
    const auto to_B = rows(grad_B, states, length, reverse), to_C = rows(grad_C, states, length, reverse);
    const auto du = rows(scratch.du, kWidth, length, reverse), ddelta = rows(scratch.ddelta, kWidth, length, reverse);
    memset(scratch.grad_A, 0, states * kWidth * sizeof(float));
    for (int64_t chunk = BackwardScratch::chunks(scan) - 1; chunk >= 0; --chunk) {
      const int64_t s0 = chunk * kBackwardChunk, steps = smaller(kBackwardChunk, length - s0);
      load_chunk(direction, s0, steps);
      const BackwardChunk work{scratch.limited,
                               scratch.u,
                               scratch.visible_g,
                               {B[s0], B.step},
                               {C[s0], C.step},
                               {to_B[s0], to_B.step},
                               {to_C[s0], to_C.step},
                               scratch.starts + chunk * states * kWidth,
                               scratch.carry,
                               scratch.grad_A,
                               {du[s0], du.step},
                               {ddelta[s0], ddelta.step},
                               scratch.tile_a,
                               scratch.tile_e,
                               steps};
      retreat(work, scratch.rates, states, direction.masked);
    }
  }

  void run_direction(int index, const Direction& direction, float* share_of_A, Vec& grad_first) const {
    pack_rates(direction.A + column * scan.states, scan.states, lanes, scratch.rates);
    const float* given = direction.carried ? state_block(scan.state, scan, item, column) : nullptr;
    sweep(direction, given);
    const float* grad_last = index == 0 ? state_block(job.grads->grad_last_state, scan, item, column) : nullptr;
    if (grad_last) {
      spread_state(grad_last, scan.states, lanes, scratch.carry);
    } else {
      memset(scratch.carry, 0, scan.states * kWidth * sizeof(float));
    }
    walk_back(direction);
    float* grad_A = share_of_A + (item * scan.channels + column) * scan.states;
    gather_state(scratch.grad_A, scan.states, lanes, grad_A);
    grad_first = splat(0.0f);
    if (given) {
      gather_state(scratch.carry, scan.states, lanes, state_block(job.grads->state, scan, item, column));
    } else if (scan.first_input) {
      for (int64_t n = 0; n < scan.states; ++n) grad_first += load(scratch.carry + n * kWidth);
    }
  }

  // Add the skip term, go back through the gate and the softplus, and store the gradients.
  void finish(float skips) const {
    const auto x = walk(scan.x), dt = walk(scan.dt), grad_y = walk(job.grad_y);
    const auto z = scan.z.data ? walk(scan.z) : x;
    const auto grad_x = walk(job.grads->x), grad_dt = walk(job.grads->dt);
    const auto grad_z = scan.z.data ? walk(job.grads->z) : grad_x;
    const Vec skip = scan.D ? load(scan.D + column, lanes) * splat(skips) : splat(0.0f);
    Vec grad_D = splat(0.0f), grad_bias = splat(0.0f);
    for (int64_t t = 0; t < scan.length; ++t) {
      const int64_t at = t * kWidth;
      const Vec xt = load(x[t], lanes), g = load(scratch.g + at), du = load(scratch.du + at);
      const Vec slope = vec_sigmoid(load(dt[t], lanes) + bias());
      const Vec ddt = mul_add(du, xt, load(scratch.ddelta + at)) * slope;
      store(grad_dt[t], ddt, lanes);
      grad_bias += ddt;
      store(grad_x[t], mul_add(du, load(scratch.delta + at), g * skip), lanes);
      grad_D = mul_add(g * splat(skips), xt, grad_D);
      if (scan.z.data) {
        const Vec zt = load(z[t], lanes), y = mul_add(skip, xt, load(scratch.y + at));
        store(grad_z[t], load(grad_y[t], lanes) * y * silu_slope(zt, vec_sigmoid(zt)), lanes);
      }
    }
    if (job.D) store(job.D + item * scan.channels + column, grad_D, lanes);
    if (job.bias) store(job.bias + item * scan.channels + column, grad_bias, lanes);
  }

  void run() const {
    Direction directions[2];
    const int count = directions_of(scan, job.bidirectional, directions);
    Vec grad_first[2];
    prepare();
    for (int i = 0; i < count; ++i) run_direction(i, directions[i], i == 0 ? job.A : job.A_b, grad_first[i]);
    finish(job.bidirectional ? 2.0f : 1.0f);
    if (!scan.first_input) return;
    for (int i = 0; i < count; ++i) {
      float* first = walk(job.grads->x, directions[i].reverse)[0];
      store(first, load(first, lanes) + grad_first[i], lanes);
    }
  }
};

void scan_backward_range(const ScanBackwardJob& job, int64_t begin, int64_t end) {
  const vmp_scan& scan = *job.scan;
  Scratch memory(BackwardScratch::size(scan), job.status);
  if (!memory) return;
  BackwardScratch scratch(scan, memory);
  const int64_t blocks = (scan.channels + kWidth - 1) / kWidth, projections = scan.length * scan.states;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t item = task / job.slices, slice = task % job.slices;
    float *B = job.B + task * projections, *C = job.C + task * projections;
    memset(B, 0, projections * sizeof(float));
    memset(C, 0, projections * sizeof(float));
    for (int64_t block = slice * blocks / job.slices; block < (slice + 1) * blocks / job.slices; ++block) {
      const int64_t column = block * kWidth;
      BackwardBlock{job, scan, item, column, smaller(kWidth, scan.channels - column), B, C, scratch}.run();
    }
  }
}

}  // namespace
