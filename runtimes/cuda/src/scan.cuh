// The forward scan, with the sequence cut into chunks so that a small batch fills the GPU. There are three kernels:
//
//   summarise_chunks  walks each chunk from a zero state. It stores the end state of the chunk and the sum of its step
//                     sizes, from which the decay over the chunk follows: the product of exp(delta A) over the steps is
//                     exp(A sum(delta));
//   carry_states      turns the end states of the chunks into the true ones, one chunk after the other;
//   replay_chunks     walks each chunk again from its true start state and writes y.
//
// A thread has one channel and up to kStatesPerThread of its states in registers. With more states, neighbouring lanes
// share a channel. threadIdx.y is the direction: both directions walk a chunk in the same block, from its two ends.
// "Scanned" indices count in the order of the direction.
//
// This is device code alone, which NVRTC compiles, too. scan.cu launches it, and a code generator can write kernels
// around it that fill a Job with constants. scan.cu has the sizes of the grid and of its blocks. The dynamic shared
// memory of a kernel is staged_floats or replay_floats, unless the kernel passes memory of its own.
#pragma once

#include "elementary.cuh"
#include "tuning.h"
#include "vmp_cuda.h"

namespace vmp_cuda {

constexpr float kLog2e = 1.44269504f;
constexpr float kLargest = 3.402823466e38f;  // the largest float32

struct Job {
  vmp_cuda_scan scan;
  vmp_cuda_output y;
  int chunk, chunks;   // number of steps of a chunk, number of chunks
  int channel_blocks;  // number of blocks that cover the channels
  float* delta_sums;   // (directions, batch, chunks, channels)
  float* states;       // (directions, batch, chunks, states, channels): the states at the ends of the chunks
};

// -------------------------------------------------------------------------------------------- the place of a thread

struct Direction {
  const float* A;
  bool reverse, masked;
  const float* state;  // (batch, channels, states), before the first step; null if the direction starts afresh
};

__device__ inline Direction direction_of(const vmp_cuda_scan& scan, int index) {
  const bool both = scan.A_b != nullptr;
  if (index == 0) return {scan.A, !both && scan.reverse, !both && scan.mask, scan.state};
  return {scan.A_b, true, scan.mask != 0, nullptr};
}

// What a thread works on. kGroups threads share a channel.
template <int kGroups>
struct Place {
  int direction, group, lane;  // lane: the channel within the block
  int64_t item, channel;       // channel: always an existing one, so that every thread may load
  bool writes;                 // false for threads past the last channel
  int chunk, steps;            // index and number of steps of the block's chunk
  bool reverse, first, last;   // first, last: whether the chunk is the first or last one in scanned order

  __device__ explicit Place(const Job& job, const Direction& d) {
    const int64_t channels = job.scan.channels;
    int64_t block = blockIdx.x;
    direction = threadIdx.y;
    group = threadIdx.x % kGroups;
    lane = threadIdx.x / kGroups;
    const int64_t index = block % job.channel_blocks * (kLanes / kGroups) + lane;
    block /= job.channel_blocks;
    writes = index < channels;
    channel = writes ? index : channels - 1;
    chunk = block % job.chunks;
    item = block / job.chunks;
    const int64_t left = job.scan.length - static_cast<int64_t>(chunk) * job.chunk;
    steps = left < job.chunk ? left : job.chunk;
    reverse = d.reverse;
    first = chunk == (reverse ? job.chunks - 1 : 0);
    last = chunk == (reverse ? 0 : job.chunks - 1);
  }
};

__device__ inline int64_t summary_index(const Job& job, int direction, int64_t item, int chunk) {
  return (direction * job.scan.batch + item) * job.chunks + chunk;
}

__device__ inline float* states_of(const Job& job, int direction, int64_t item, int chunk, int64_t channel) {
  return job.states + summary_index(job, direction, item, chunk) * job.scan.states * job.scan.channels + channel;
}

__device__ inline float* delta_sum_of(const Job& job, int direction, int64_t item, int chunk, int64_t channel) {
  return job.delta_sums + summary_index(job, direction, item, chunk) * job.scan.channels + channel;
}

__device__ inline int64_t state_index(const vmp_cuda_scan& scan, int64_t item, int64_t channel, int state) {
  return (item * scan.channels + channel) * scan.states + state;
}

template <typename T>
__device__ float start_state(const Job& job, const Direction& direction, int64_t item, int64_t channel, int state) {
  const vmp_cuda_scan& scan = job.scan;
  if (direction.state) return direction.state[state_index(scan, item, channel, state)];
  if (!scan.first_input) return 0.0f;
  const int64_t row = direction.reverse ? scan.length - 1 : 0;
  return to_float(static_cast<const T*>(scan.x.data)[item * scan.x.batch_stride + row * scan.x.row_stride + channel]);
}

// ---------------------------------------------------------------------------------------------- walking a chunk

// One channel of an activation, from the chunk's first scanned row on.
template <typename T>
struct Column {
  T* row;
  int64_t step;

  template <int kGroups, typename Array>
  __device__ static Column at(const Array& array, const Job& job, const Place<kGroups>& p) {
    const int64_t row = static_cast<int64_t>(p.chunk) * job.chunk + (p.reverse ? p.steps - 1 : 0);
    T* data = static_cast<T*>(array.data);
    return {data + p.item * array.batch_stride + row * array.row_stride + p.channel,
            p.reverse ? -array.row_stride : array.row_stride};
  }
};

// Copy the chunk's rows of B or C to shared memory as float32, in memory order, padded with zeros to kWidth states.
template <typename T, int kWidth>
__device__ void stage(const vmp_cuda_input& array, const Job& job, int64_t item, int chunk, int steps, float* rows) {
  const T* data = static_cast<const T*>(array.data) + item * array.batch_stride +
                  static_cast<int64_t>(chunk) * job.chunk * array.row_stride;
  const int states = job.scan.states;
  for (int i = threadIdx.y * kLanes + threadIdx.x; i < steps * kWidth; i += blockDim.y * kLanes) {
    const int column = i % kWidth;
    rows[i] = column < states ? to_float(data[i / kWidth * array.row_stride + column]) : 0.0f;
  }
}

enum class Output { kNothing, kState, kDecayed };

// The states of one thread. States past the last one have zero rate, B and C, and contribute nothing.
template <int kStates>
struct States {
  float h[kStates], rate[kStates];  // rate: A times log2(e)

  template <int kGroups>
  __device__ States(const Job& job, const Direction& direction, const Place<kGroups>& p) {
    const int n0 = p.group * kStates, states = job.scan.states;
    const float* A = direction.A + p.channel * states + n0;
#pragma unroll
    for (int n = 0; n < kStates; ++n) rate[n] = n0 + n < states ? A[n] * kLog2e : 0.0f;
  }

  __device__ void fill(float value) {
#pragma unroll
    for (int n = 0; n < kStates; ++n) h[n] = value;
  }

  // Advance the states by one step. Return this thread's share of sum_n C h.
  template <Output kOutput>
  __device__ float advance(float delta, float u, const float* B, const float* C) {
    float sum[2] = {0.0f, 0.0f};  // two sums halve the latency of the additions
#pragma unroll
    for (int n = 0; n < kStates; n += 4) {
      const float4 b4 = *reinterpret_cast<const float4*>(B + n);
      const float4 c4 = kOutput == Output::kNothing ? float4{} : *reinterpret_cast<const float4*>(C + n);
      const float b[4] = {b4.x, b4.y, b4.z, b4.w}, c[4] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float decayed = exp2f(delta * rate[n + i]) * h[n + i];
        h[n + i] = fmaf(u, b[i], decayed);
        if (kOutput != Output::kNothing) {
          sum[i & 1] = fmaf(c[i], kOutput == Output::kState ? h[n + i] : decayed, sum[i & 1]);
        }
      }
    }
    return sum[0] + sum[1];
  }
};

// --------------------------------------------------------------------------------------------------- the kernels

extern __shared__ float4 shared_memory[];  // float4 for its alignment

// Return the number of floats of shared memory that summarise_chunks needs, and below that replay_chunks.
template <int kStates, int kGroups>
__host__ __device__ constexpr int64_t staged_floats(int64_t chunk) {
  return chunk * kStates * kGroups;
}

template <int kStates, int kGroups>
__host__ __device__ constexpr int64_t replay_floats(int64_t chunk, int directions) {
  return 2 * staged_floats<kStates, kGroups>(chunk) + (directions == 2 ? chunk * (kLanes / kGroups) : 0);
}

// The first kernel. The grid has one block of kLanes x directions threads for each channel block, chunk and batch item.
template <typename T, int kStates, int kGroups>
__device__ __forceinline__ void summarise_chunks(const Job& job, float4* shared = shared_memory) {
  constexpr int kWidth = kStates * kGroups;
  const vmp_cuda_scan& scan = job.scan;
  const Direction direction = direction_of(scan, threadIdx.y);
  const Place<kGroups> p(job, direction);
  float* B = reinterpret_cast<float*>(shared);  // (steps, kWidth)
  stage<T, kWidth>(scan.B, job, p.item, p.chunk, p.steps, B);
  __syncthreads();
  if (p.last) return;  // no chunk needs the last one's summary

  States<kStates> states(job, direction, p);
  states.fill(0.0f);
  auto x = Column<const T>::at(scan.x, job, p), dt = Column<const T>::at(scan.dt, job, p);
  const float bias = scan.dt_bias ? scan.dt_bias[p.channel] : 0.0f;
  float delta_sum = 0.0f;
#pragma unroll 1
  for (int i = 0; i < p.steps; ++i) {
    const int t = p.reverse ? p.steps - 1 - i : i;
    const float delta = softplus(to_float(*dt.row) + bias);
    delta_sum += delta;
    states.template advance<Output::kNothing>(delta, delta * to_float(*x.row), B + t * kWidth + p.group * kStates,
                                              nullptr);
    x.row += x.step, dt.row += dt.step;
  }
  if (!p.writes) return;
  if (p.group == 0) *delta_sum_of(job, p.direction, p.item, p.chunk, p.channel) = delta_sum;
  float* ends = states_of(job, p.direction, p.item, p.chunk, p.channel);
#pragma unroll
  for (int n = 0; n < kStates; ++n) {
    const int state = p.group * kStates + n;
    if (state < scan.states) ends[state * scan.channels] = states.h[n];
  }
}

// The second kernel. The grid has blocks of kLanes threads, and along x one for each kLanes channels and batch item. A
// thread has one state of one channel: blockIdx.y is the state, blockIdx.z the direction.
template <typename T>
__device__ __forceinline__ void carry_states(const Job& job) {
  constexpr int kAhead = 8;  // number of summaries loaded at once, so that the recurrence does not wait for memory
  const vmp_cuda_scan& scan = job.scan;
  const unsigned blocks = (scan.channels + kLanes - 1) / kLanes;
  const int64_t channel = static_cast<int64_t>(blockIdx.x % blocks) * kLanes + threadIdx.x, item = blockIdx.x / blocks;
  if (channel >= scan.channels) return;
  const Direction direction = direction_of(scan, blockIdx.z);
  const float rate = direction.A[channel * scan.states + blockIdx.y] * kLog2e;
  float h = start_state<T>(job, direction, item, channel, blockIdx.y);
  for (int begin = 0; begin < job.chunks - 1; begin += kAhead) {
    float delta[kAhead], end[kAhead];
    float* slot[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i >= job.chunks - 1) break;
      const int chunk = direction.reverse ? job.chunks - 1 - begin - i : begin + i;
      slot[i] = states_of(job, blockIdx.z, item, chunk, channel) + blockIdx.y * scan.channels;
      end[i] = *slot[i];
      delta[i] = *delta_sum_of(job, blockIdx.z, item, chunk, channel);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i >= job.chunks - 1) break;
      // The sum of step sizes may overflow, and infinity times a rate of zero would not be a number.
      h = fmaf(exp2f(fminf(delta[i], kLargest) * rate), h, end[i]);
      *slot[i] = h;
    }
  }
}

// Walks a chunk in one direction. It leaves its share of y in shared memory for the other direction, or adds the share
// that the other direction left and finishes y.
template <typename T, int kStates, int kGroups>
struct Replay {
  const Job& job;
  const Place<kGroups>& p;
  States<kStates>& states;
  const float *B, *C;  // (steps, kWidth)
  float* partial;      // (steps, channels of the block): shares of y; null for one direction
  Column<const T> x, dt, z;
  Column<T> y;
  float bias, skip;
  bool clears_first;  // whether a mask leaves nothing of the first step

  template <bool kMasked, bool kFinish>
  __device__ void walk(int begin, int end) {
    constexpr int kWidth = kStates * kGroups;
#pragma unroll 1
    for (int i = begin; i < end; ++i) {
      const int t = p.reverse ? p.steps - 1 - i : i;
      const int row = t * kWidth + p.group * kStates;
      const float input = to_float(*x.row), delta = softplus(to_float(*dt.row) + bias);
      float sum =
          states.template advance<kMasked ? Output::kDecayed : Output::kState>(delta, delta * input, B + row, C + row);
#pragma unroll
      for (int offset = 1; offset < kGroups; offset *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      if (kMasked && clears_first && i == 0) sum = 0.0f;
      if (kFinish) {
        finish(partial ? sum + partial[t * (kLanes / kGroups) + p.lane] : sum, input);
      } else if (p.group == 0) {
        partial[t * (kLanes / kGroups) + p.lane] = sum;
      }
      x.row += x.step, dt.row += dt.step, z.row += z.step, y.row += y.step;
    }
  }

  __device__ void finish(float sum, float input) {
    if (p.group != 0 || !p.writes) return;
    sum = fmaf(skip, input, sum);
    if (job.scan.z.data) sum *= silu(to_float(*z.row));
    store(y.row, sum);
  }

  template <bool kFinish>
  __device__ void walk(bool masked, int begin, int end) {
    if (masked) {
      walk<true, kFinish>(begin, end);
    } else {
      walk<false, kFinish>(begin, end);
    }
  }
};

// The third kernel, in the same grid as summarise_chunks.
template <typename T, int kStates, int kGroups>
__device__ __forceinline__ void replay_chunks(const Job& job, float4* shared = shared_memory) {
  constexpr int kWidth = kStates * kGroups;
  const vmp_cuda_scan& scan = job.scan;
  const bool both = scan.A_b != nullptr;
  const Direction direction = direction_of(scan, threadIdx.y);
  const Place<kGroups> p(job, direction);
  float* B = reinterpret_cast<float*>(shared);
  float* C = B + job.chunk * kWidth;
  float* partial = both ? C + job.chunk * kWidth : nullptr;
  stage<T, kWidth>(scan.B, job, p.item, p.chunk, p.steps, B);
  stage<T, kWidth>(scan.C, job, p.item, p.chunk, p.steps, C);

  States<kStates> states(job, direction, p);
  const float* start =
      p.first ? nullptr : states_of(job, p.direction, p.item, p.chunk + (p.reverse ? 1 : -1), p.channel);
#pragma unroll
  for (int n = 0; n < kStates; ++n) {
    const int state = p.group * kStates + n;
    if (state >= scan.states) {
      states.h[n] = 0.0f;
    } else {
      states.h[n] = start ? start[state * scan.channels] : start_state<T>(job, direction, p.item, p.channel, state);
    }
  }
  const auto x = Column<const T>::at(scan.x, job, p), dt = Column<const T>::at(scan.dt, job, p);
  const auto z = scan.z.data ? Column<const T>::at(scan.z, job, p) : x;
  const float bias = scan.dt_bias ? scan.dt_bias[p.channel] : 0.0f;
  const float skip = scan.D ? scan.D[p.channel] * (both ? 2.0f : 1.0f) : 0.0f;
  Replay<T, kStates, kGroups> replay{
      job, p, states, B, C, partial, x, dt, z, Column<T>::at(job.y, job, p), bias, skip, p.first && !direction.state};

  // Each direction finishes the half of the chunk that it reaches second, where the other direction has left its
  // shares.
  const int left = !both ? 0 : p.reverse ? p.steps / 2 : (p.steps + 1) / 2;
  __syncthreads();
  replay.template walk<false>(direction.masked, 0, left);
  __syncthreads();
  replay.template walk<true>(direction.masked, left, p.steps);
  if (!scan.last_state || p.direction != 0 || !p.last || !p.writes) return;
#pragma unroll
  for (int n = 0; n < kStates; ++n) {
    const int state = p.group * kStates + n;
    if (state < scan.states) scan.last_state[state_index(scan, p.item, p.channel, state)] = states.h[n];
  }
}

}  // namespace vmp_cuda
