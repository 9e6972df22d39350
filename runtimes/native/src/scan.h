// The forward scan. A task walks one channel block (kWidth channels of one batch item) over the whole sequence in
// chunks that fit into the first-level cache. In each chunk it does the elementwise work first, then the recurrence
// with the states in registers.
#pragma once

#include <initializer_list>

#include "blocks.h"
#include "elementary.h"

namespace {

constexpr int64_t kChunk = 64;

// A chunk of the sequence in scanned order. Rows have kWidth elements, those of B and C one element per state.
struct Chunk {
  Rows<float> delta;
  Rows<float> u;  // delta x
  Rows<const float> B, C;
  float* state;   // (states, kWidth): on entry before the chunk's first step, on return after its last
  Rows<float> y;  // the scan is added to it
  int64_t steps;
  bool is_start;  // true for the first chunk of a scan without a given state: if masked, its first step gives nothing
};

// Return whether decay_near can compute every decay of a step.
inline bool is_near(const Chunk& chunk, const Rates& rates, int64_t s) {
  return all_within(load(chunk.delta[s]), rates.near);
}

inline Chunk part_of(const Chunk& chunk, int64_t begin, int64_t end) {
  return {{chunk.delta[begin], chunk.delta.step},
          {chunk.u[begin], chunk.u.step},
          {chunk.B[begin], chunk.B.step},
          {chunk.C[begin], chunk.C.step},
          chunk.state,
          {chunk.y[begin], chunk.y.step},
          end - begin,
          chunk.is_start && begin == 0};
}

// Advance kStates states from n0 on over a chunk. Everything that the loop uses is a local variable, so that the
// compiler keeps what fits in registers and addresses the rest by constant offsets.
template <int kStates, bool kMasked, bool kNear>
void advance_states(const Chunk& chunk, const Rates& rates, int64_t n0) {
  Vec h[kStates], high[kStates], low[kStates];
  float* state = chunk.state + n0 * kWidth;
  VMP_UNROLL
  for (int n = 0; n < kStates; ++n) {
    h[n] = load(state + n * kWidth);
    high[n] = load(rates.high + (n0 + n) * kWidth);
    if (!kNear) low[n] = load(rates.low + (n0 + n) * kWidth);
  }
  const float *deltas = chunk.delta.first, *us = chunk.u.first, *B = chunk.B.first + n0, *C = chunk.C.first + n0;
  float* ys = chunk.y.first;
  const int64_t delta_step = chunk.delta.step, u_step = chunk.u.step, y_step = chunk.y.step;
  const int64_t B_step = chunk.B.step, C_step = chunk.C.step;
  for (int64_t left = chunk.steps; left > 0; --left) {
    const Vec delta = kNear ? load(deltas) : min(rates.longest, load(deltas)), u = load(us);
    Vec y[2] = {load(ys), splat(0.0f)};  // two sums halve the latency of the additions
    VMP_UNROLL
    for (int n = 0; n < kStates; ++n) {
      const Vec decayed = kNear ? decay_near(delta, high[n], h[n]) : decay_exp2(delta, high[n], low[n]) * h[n];
      h[n] = mul_add(u, splat(B[n]), decayed);
      y[n & 1] = mul_add(splat(C[n]), kMasked ? decayed : h[n], y[n & 1]);
    }
    store(ys, y[0] + y[1]);
    deltas += delta_step, us += u_step, ys += y_step, B += B_step, C += C_step;
  }
  VMP_UNROLL
  for (int n = 0; n < kStates; ++n) store(state + n * kWidth, h[n]);
}

// Advance the states in groups of kStates, then the rest in smaller groups. Return the number of states done.
template <int kStates, bool kMasked, bool kNear>
int64_t advance_groups(const Chunk& chunk, const Rates& rates, int64_t states, int64_t n0) {
  for (; n0 + kStates <= states; n0 += kStates) advance_states<kStates, kMasked, kNear>(chunk, rates, n0);
  if constexpr (kStates > 1) n0 = advance_groups<kStates / 2, kMasked, kNear>(chunk, rates, states, n0);
  return n0;
}

// Which exp computes a step's decays depends on the step alone, not on its neighbours, so that a sequence gives the
// same numbers in one call and in several.
inline void advance(const Chunk& chunk, const Rates& rates, int64_t states, bool masked) {
  const Vec first_y = load(chunk.y[0]);
  for (int64_t begin = 0, end = 0; begin < chunk.steps; begin = end) {
    const bool near = is_near(chunk, rates, begin);
    for (end = begin + 1; end < chunk.steps && is_near(chunk, rates, end) == near;) ++end;
    const Chunk run = part_of(chunk, begin, end);
    if (masked) {
      (near ? advance_groups<kScanStates, true, true> : advance_groups<kScanStates, true, false>)(run, rates, states,
                                                                                                  0);
    } else {
      (near ? advance_groups<kScanStates, false, true> : advance_groups<kScanStates, false, false>)(run, rates, states,
                                                                                                    0);
    }
  }
  if (masked && chunk.is_start) store(chunk.y[0], first_y);
}

struct Direction {
  const float* A;  // (channels, states)
  bool reverse, masked;
  bool carried;  // the caller gives the state before the first step
};

inline int directions_of(const vmp_scan& scan, bool bidirectional, Direction out[2]) {
  out[0] = {scan.A, !bidirectional && scan.reverse, !bidirectional && scan.mask, scan.state != nullptr};
  out[1] = {scan.A_b, true, scan.mask != 0, false};
  return bidirectional ? 2 : 1;
}

// One channel block of an array (batch, channels, states), or null if there is no array.
template <typename T>
inline T* state_block(T* array, const vmp_scan& scan, int64_t item, int64_t column) {
  return array ? array + (item * scan.channels + column) * scan.states : nullptr;
}

// Copy 4 x 4 numbers transposed; the rows are `from_step` and `to_step` apart.
inline void transpose4(const float* from, int64_t from_step, float* to, int64_t to_step) {
  typedef float Four __attribute__((vector_size(16)));
  Four a, b, c, d;
  memcpy(&a, from, sizeof a);
  memcpy(&b, from + from_step, sizeof b);
  memcpy(&c, from + 2 * from_step, sizeof c);
  memcpy(&d, from + 3 * from_step, sizeof d);
  const Four rows[4] = {{a[0], b[0], c[0], d[0]},
                        {a[1], b[1], c[1], d[1]},
                        {a[2], b[2], c[2], d[2]},
                        {a[3], b[3], c[3], d[3]}};  // compilers make shuffles of it
  for (int i = 0; i < 4; ++i) memcpy(to + i * to_step, &rows[i], sizeof rows[i]);
}

// Copy an array (rows, columns), whose rows are `from_step` apart, to (columns, rows), whose rows are `to_step` apart.
inline void transpose(const float* from, int64_t from_step, int64_t rows, int64_t columns, float* to, int64_t to_step) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t r = 0; r < whole_rows; r += 4) {
    for (int64_t c = 0; c < whole_columns; c += 4) {
      transpose4(from + r * from_step + c, from_step, to + c * to_step + r, to_step);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c)
      to[c * to_step + r] = from[r * from_step + c];
  }
}

// Copy (lanes, states) to (states, kWidth), with zeros in the other lanes.
inline void spread_state(const float* from, int64_t states, int64_t lanes, float* to) {
  if (lanes < kWidth) memset(to, 0, states * kWidth * sizeof(float));
  transpose(from, states, lanes, states, to, kWidth);
}

// Copy (states, kWidth) to (lanes, states).
inline void gather_state(const float* from, int64_t states, int64_t lanes, float* to) {
  transpose(from, kWidth, states, lanes, to, states);
}

// Fill the state (states, kWidth) before the first step. `given` (lanes, states) is the caller's, or null.
inline void start_state(const vmp_scan& scan, const float* given, const float* first_x, int64_t lanes, float* state) {
  if (given) return spread_state(given, scan.states, lanes, state);
  const Vec h = scan.first_input ? load(first_x, lanes) : splat(0.0f);
  for (int64_t n = 0; n < scan.states; ++n) store(state + n * kWidth, h);
}

// Scratch memory of one forward task. With two directions it holds delta, u and y of the whole sequence, in memory
// order, so that the second direction need not read the inputs again: their rows lie so far apart that this would be
// slower.
struct ScanScratch {
  int64_t capacity;      // number of steps
  float *delta, *u, *y;  // (capacity, kWidth)
  float* state;
  // The packed rates of channel blocks and directions, (blocks, directions, 3 states + 2, kWidth), and which blocks have
  // them. They are packed once for all items: where each item has few steps, packing takes as long as scanning. A task
  // range within one item needs those of one block at a time.
  float *rates, *packed;
  int64_t blocks, directions, rates_size;

  static int64_t steps(const ScanJob& job) { return job.bidirectional ? job.scan->length : kChunk; }
  static int64_t kept_blocks(const ScanJob& job) {
    return job.scan->batch > 1 ? (job.scan->channels + kWidth - 1) / kWidth : 1;
  }
  static int64_t size_of_rates(const ScanJob& job) { return (3 * job.scan->states + 2) * kWidth; }
  static int64_t size(const ScanJob& job) {
    const int64_t kept = kept_blocks(job);
    return (3 * steps(job) + job.scan->states) * kWidth + kept * ((job.bidirectional ? 2 : 1) * size_of_rates(job) + 1);
  }
  ScanScratch(const ScanJob& job, Scratch& scratch)
      : capacity(steps(job)),
        blocks(kept_blocks(job)),
        directions(job.bidirectional ? 2 : 1),
        rates_size(size_of_rates(job)) {
    for (float** piece : {&delta, &u, &y}) *piece = scratch.take(capacity * kWidth);
    state = scratch.take(job.scan->states * kWidth);
    rates = scratch.take(blocks * directions * rates_size);
    packed = scratch.take(blocks);
    for (int64_t i = 0; i < blocks; ++i) packed[i] = 0.0f;
  }

  // Return the rates of a channel block and a direction, packed or yet to be packed.
  Rates rates_of(int64_t block, int64_t direction) const {
    const int64_t states = (rates_size / kWidth - 2) / 3 * kWidth;
    float* A = rates + (block % blocks * directions + direction) * rates_size;
    float* limits = A + 3 * states;
    return {A, A + states, A + 2 * states, load(limits), load(limits + kWidth)};
  }

  void pack(const vmp_scan& scan, const Direction* all, int64_t block, int64_t lanes) {
    if (blocks > 1 && packed[block] != 0.0f) return;
    packed[block % blocks] = 1.0f;
    for (int64_t i = 0; i < directions; ++i) {
      Rates to = rates_of(block, i);
      pack_rates(all[i].A + block * kWidth * scan.states, scan.states, lanes, to);
      float* limits = to.low + scan.states * kWidth;
      store(limits, to.longest);
      store(limits + kWidth, to.near);
    }
  }
};

// The scan of one channel block of one batch item.
struct ScanBlock {
  const ScanJob& job;
  const vmp_scan& scan;
  int64_t item, column, lanes;
  ScanScratch& scratch;

  template <typename View>
  auto walk(const View& view, bool reverse) const {
    return rows(view, item, column, scan.length, reverse);
  }

  // Compute delta and u, and set y to the skip term D x.
  void prepare(const Chunk& chunk, int64_t s0, bool reverse) const {
    const auto x = walk(scan.x, reverse), dt = walk(scan.dt, reverse);
    const Vec bias = scan.dt_bias ? load(scan.dt_bias + column, lanes) : splat(0.0f);
    const Vec skip = scan.D ? load(scan.D + column, lanes) * splat(job.bidirectional ? 2.0f : 1.0f) : splat(0.0f);
    for (int64_t i = 0; i < chunk.steps; ++i) {
      const Vec d = vec_softplus(load(dt[s0 + i], lanes) + bias), xi = load(x[s0 + i], lanes);
      store(chunk.delta[i], d);
      store(chunk.u[i], d * xi);
      store(chunk.y[i], scan.D ? skip * xi : splat(0.0f));
    }
  }

  // Apply the gate and store the result.
  void finish(const Chunk& chunk, int64_t s0, bool reverse) const {
    const auto y = walk(job.y, reverse);
    const auto z = scan.z.data ? walk(scan.z, reverse) : walk(scan.x, reverse);
    for (int64_t i = 0; i < chunk.steps; ++i) {
      Vec out = load(chunk.y[i]);
      if (scan.z.data) out *= vec_silu(load(z[s0 + i], lanes));
      store(y[s0 + i], out, lanes);
    }
  }

  Chunk chunk_at(int64_t s0, const Direction& direction) const {
    const int64_t length = scan.length;
    const bool whole = job.bidirectional, reverse = direction.reverse;
    const int64_t step = whole && reverse ? -kWidth : kWidth;
    const int64_t first = !whole ? 0 : (reverse ? length - 1 - s0 : s0) * kWidth;
    const auto B = rows(scan.B, item, 0, length, reverse), C = rows(scan.C, item, 0, length, reverse);
    return {{scratch.delta + first, step},
            {scratch.u + first, step},
            {B[s0], B.step},
            {C[s0], C.step},
            scratch.state,
            {scratch.y + first, step},
            smaller(kChunk, length - s0),
            s0 == 0 && !direction.carried};
  }

  void run() const {
    Direction directions[2];
    const int count = directions_of(scan, job.bidirectional, directions);
    scratch.pack(scan, directions, column / kWidth, lanes);
    for (int i = 0; i < count; ++i) {
      const Rates rates = scratch.rates_of(column / kWidth, i);
      const bool reverse = directions[i].reverse;
      const float* given = directions[i].carried ? state_block(scan.state, scan, item, column) : nullptr;
      start_state(scan, given, walk(scan.x, reverse)[0], lanes, scratch.state);
      for (int64_t s0 = 0; s0 < scan.length; s0 += kChunk) {
        const Chunk chunk = chunk_at(s0, directions[i]);
        if (i == 0) prepare(chunk, s0, reverse);
        advance(chunk, rates, scan.states, directions[i].masked);
        if (i == count - 1) finish(chunk, s0, reverse);
      }
      if (i == 0 && scan.last_state) {
        gather_state(scratch.state, scan.states, lanes, state_block(scan.last_state, scan, item, column));
      }
    }
  }
};

void scan_range(const ScanJob& job, int64_t begin, int64_t end) {
  const vmp_scan& scan = *job.scan;
  Scratch memory(ScanScratch::size(job), job.status);
  if (!memory) return;
  ScanScratch scratch(job, memory);
  const int64_t blocks = (scan.channels + kWidth - 1) / kWidth;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t column = task % blocks * kWidth;
    ScanBlock{job, scan, task / blocks, column, smaller(kWidth, scan.channels - column), scratch}.run();
  }
}

void map_decay(const float* in, float rate, float* out, int64_t n) {
  float packed[3][kWidth];
  Rates rates{packed[0], packed[1], packed[2], Vec{}, Vec{}};
  pack_rates(&rate, 1, 1, rates);
  const Vec high = splat(packed[1][0]), low = splat(packed[2][0]);
  float longest[kWidth], near[kWidth];
  store(longest, rates.longest);
  store(near, rates.near);
  map(in, out, n, [=](Vec v) {
    if (all_within(v, splat(near[0]))) return decay_near(v, high, splat(1.0f));
    return decay_exp2(min(splat(longest[0]), v), high, low);
  });
}

}  // namespace
