// The depthwise causal convolution with its SiLU. A thread computes a run of kConvSteps steps of one channel and keeps
// the inputs of the next step in registers. Each input is thereby loaded once, except for the inputs before a run,
// which the previous run loads, too. Neighbouring threads have neighbouring channels. With `reverse`, "scanned" indices
// count from the end of the sequence.
//
// Like scan.cuh, this is device code alone. conv.cu has the sizes of the grid and of its blocks.
#pragma once

#include "elementary.cuh"
#include "tuning.h"
#include "vmp_cuda.h"

namespace vmp_cuda {

struct ConvJob {
  vmp_cuda_conv conv;
  vmp_cuda_output y;
  int channel_blocks;  // number of blocks that cover the channels
  int step_blocks;     // number of blocks that cover the sequence
};

// The inputs of one step and the weights of one channel; index i is the input i steps ago. Inputs and weights from
// index `taps` on are zero.
template <int kTaps>
struct Window {
  float weight[kTaps], input[kTaps];
  int taps;

  __device__ Window(const vmp_cuda_conv& conv, int64_t channel) : taps(conv.taps) {
    const float* last = conv.weight + channel * taps + taps - 1;
#pragma unroll
    for (int i = 0; i < kTaps; ++i) {
      weight[i] = i < taps ? last[-i] : 0.0f;
      input[i] = 0.0f;
    }
  }

  __device__ void push(float v) {
#pragma unroll
    for (int i = kTaps - 1; i > 0; --i) input[i] = i < taps ? input[i - 1] : 0.0f;
    input[0] = v;
  }

  __device__ float sum(float bias) const {
    float total = bias;
#pragma unroll
    for (int i = kTaps - 1; i >= 0; --i) total = fmaf(weight[i], input[i], total);
    return total;
  }
};

// The index of an element of a state, (batch, taps - 1, channels).
__device__ inline int64_t state_index(const vmp_cuda_conv& conv, int64_t item, int64_t row, int64_t channel) {
  return (item * (conv.taps - 1) + row) * conv.channels + channel;
}

// Compute the convolution. The grid has one block of kLanes x kConvRuns threads for each channel block, step block and
// batch item. conv.taps is at most kTaps.
template <typename T, int kTaps>
__device__ __forceinline__ void causal_conv_silu(const ConvJob& job) {
  const vmp_cuda_conv& conv = job.conv;
  const unsigned blocks = blockIdx.x / job.channel_blocks;
  const int64_t channel = static_cast<int64_t>(blockIdx.x % job.channel_blocks) * kLanes + threadIdx.x;
  const int64_t item = blocks / job.step_blocks;
  const int64_t begin = (static_cast<int64_t>(blocks % job.step_blocks) * kConvRuns + threadIdx.y) * kConvSteps;
  if (channel >= conv.channels || begin >= conv.length) return;
  const int64_t left = conv.length - begin;
  const int steps = left < kConvSteps ? left : kConvSteps;

  const int64_t row = conv.reverse ? conv.length - 1 - begin : begin;
  const int64_t x_step = conv.reverse ? -conv.x.row_stride : conv.x.row_stride;
  const int64_t y_step = conv.reverse ? -job.y.row_stride : job.y.row_stride;
  const T* x = static_cast<const T*>(conv.x.data) + item * conv.x.batch_stride + row * conv.x.row_stride + channel;
  T* y = static_cast<T*>(job.y.data) + item * job.y.batch_stride + row * job.y.row_stride + channel;
  const float bias = conv.bias ? conv.bias[channel] : 0.0f;
  Window<kTaps> window(conv, channel);
#pragma unroll
  for (int i = kTaps - 1; i > 0; --i) {
    if (i >= conv.taps) continue;
    if (i <= begin) {
      window.push(to_float(x[-i * x_step]));
    } else if (conv.state) {
      window.push(conv.state[state_index(conv, item, conv.taps - 1 - i + begin, channel)]);
    }
  }

  constexpr int kAhead = 4;  // number of inputs loaded at once, so that loads do not wait for stores
#pragma unroll 1
  for (int done = 0; done < steps; done += kAhead) {
    float input[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (done + i < steps) input[i] = to_float(x[i * x_step]);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (done + i >= steps) break;
      window.push(input[i]);
      store(y + i * y_step, silu(window.sum(bias)));
    }
    x += kAhead * x_step, y += kAhead * y_step;
  }
  if (!conv.last_state || begin + steps < conv.length) return;
#pragma unroll
  for (int i = 0; i < kTaps - 1; ++i) {
    if (i < conv.taps - 1) conv.last_state[state_index(conv, item, conv.taps - 2 - i, channel)] = window.input[i];
  }
}

}  // namespace vmp_cuda
