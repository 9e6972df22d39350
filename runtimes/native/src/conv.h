// The depthwise causal convolution with its SiLU, and its gradient, in (batch, length, channels).
#pragma once

#include "blocks.h"
#include "elementary.h"

namespace {

struct Taps {
  Vec weight[VMP_MAX_TAPS];
  Vec bias;
};

// Transpose the weights (lanes, taps) of a channel block into one vector for each tap.
inline Taps pack_taps(const vmp_conv& conv, int64_t column, int64_t lanes) {
  Taps taps;
  for (int64_t k = 0; k < conv.taps; ++k) {
    float packed[kWidth] = {};
    for (int64_t c = 0; c < lanes; ++c) packed[c] = conv.weight[(column + c) * conv.taps + k];
    taps.weight[k] = load(packed);
  }
  taps.bias = conv.bias ? load(conv.bias + column, lanes) : splat(0.0f);
  return taps;
}

// The inputs of one channel block of one batch item in scanned order, from step -(taps - 1) on: the caller's state lies
// before the sequence. Without a state, those steps are zero.
struct Inputs {
  Rows<const float> x, state;
  int64_t before;  // taps - 1
  int64_t lanes;

  bool has(int64_t s) const { return s >= 0 || state.first; }
  Vec operator[](int64_t s) const { return load(s >= 0 ? x[s] : state[before + s], lanes); }
};

// Rows of an array (batch, taps - 1, channels), which may be null.
template <typename T>
inline Rows<T> state_rows(T* array, const vmp_conv& conv, int64_t item, int64_t column) {
  const int64_t rows = conv.taps - 1;
  return {array ? array + item * rows * conv.channels + column : nullptr, conv.channels};
}

inline Inputs inputs_of(const vmp_conv& conv, int64_t item, int64_t column, int64_t lanes) {
  return {rows(conv.x, item, column, conv.length, conv.reverse), state_rows(conv.state, conv, item, column),
          conv.taps - 1, lanes};
}

// Return the first tap at scanned step s that has an input.
inline int64_t first_tap(const Inputs& inputs, int64_t s) {
  return s >= inputs.before || inputs.state.first ? 0 : inputs.before - s;
}

// Return the convolution at scanned step s, before SiLU.
inline Vec weigh(const Taps& taps, int64_t count, const Inputs& inputs, int64_t s) {
  Vec sum = taps.bias;
  if (s >= count - 1) {
    for (int64_t k = 0; k < count; ++k) {
      sum = mul_add(taps.weight[k], load(inputs.x[s - (count - 1) + k], inputs.lanes), sum);
    }
    return sum;
  }
  for (int64_t k = first_tap(inputs, s); k < count; ++k) {
    sum = mul_add(taps.weight[k], inputs[s - (count - 1) + k], sum);
  }
  return sum;
}

// Store the last taps - 1 inputs.
inline void keep_inputs(const vmp_conv& conv, int64_t item, int64_t column, const Inputs& inputs) {
  const auto last = state_rows(conv.last_state, conv, item, column);
  for (int64_t i = 0; i < inputs.before; ++i) {
    const int64_t s = conv.length - inputs.before + i;
    store(last[i], inputs.has(s) ? inputs[s] : splat(0.0f), inputs.lanes);
  }
}

// A task is a span of rows, walked channel block by channel block, so that the rows and their pages stay in the caches.
void conv_range(const ConvJob& job, int64_t begin, int64_t end) {
  const vmp_conv& conv = *job.conv;
  const int64_t spans = (conv.length + vmp::kConvSpan - 1) / vmp::kConvSpan;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t item = task / spans, from = task % spans * vmp::kConvSpan;
    const int64_t to = smaller(from + vmp::kConvSpan, conv.length);
    for (int64_t column = 0; column < conv.channels; column += kWidth) {
      const int64_t lanes = smaller(kWidth, conv.channels - column);
      const Taps taps = pack_taps(conv, column, lanes);
      const Inputs inputs = inputs_of(conv, item, column, lanes);
      const auto y = rows(job.y, item, column, conv.length, conv.reverse);
      for (int64_t s = from; s < to; ++s) store(y[s], vec_silu(weigh(taps, conv.taps, inputs, s)), lanes);
      if (conv.last_state && to == conv.length) keep_inputs(conv, item, column, inputs);
    }
  }
}

// Compute the gradients of one channel block of one batch item. `inner` (length, kWidth) is scratch memory for the
// gradient before SiLU, in scanned order.
void conv_backward_block(const ConvBackwardJob& job, int64_t item, int64_t column, int64_t lanes, float* inner) {
  const vmp_conv& conv = *job.conv;
  const int64_t count = conv.taps;
  const Taps taps = pack_taps(conv, column, lanes);
  const Inputs inputs = inputs_of(conv, item, column, lanes);
  const auto grad_y = rows(job.grad_y, item, column, conv.length, conv.reverse);
  const auto grad_x = rows(job.grads->x, item, column, conv.length, conv.reverse);
  Vec grad_weight[VMP_MAX_TAPS] = {}, grad_bias = splat(0.0f);
  for (int64_t s = 0; s < conv.length; ++s) {
    const Vec v = weigh(taps, count, inputs, s);
    const Vec g = load(grad_y[s], lanes) * silu_slope(v, vec_sigmoid(v));
    store(inner + s * kWidth, g);
    grad_bias += g;
    for (int64_t k = first_tap(inputs, s); k < count; ++k) {
      grad_weight[k] = mul_add(g, inputs[s - (count - 1) + k], grad_weight[k]);
    }
  }
  const auto grad_state = state_rows(job.grads->state, conv, item, column);
  const auto grad_last = state_rows(job.grads->grad_last_state, conv, item, column);
  for (int64_t s = conv.state ? 1 - count : 0; s < conv.length; ++s) {
    const int64_t kept = s - conv.length + count - 1;  // the row of the last state that this input is
    Vec sum = grad_last.first && kept >= 0 ? load(grad_last[kept], lanes) : splat(0.0f);
    for (int64_t k = s < 0 ? -s : 0; k < count && s + k < conv.length; ++k) {
      sum = mul_add(taps.weight[count - 1 - k], load(inner + (s + k) * kWidth), sum);
    }
    store(s < 0 ? grad_state[count - 1 + s] : grad_x[s], sum, lanes);
  }
  float* weight = job.weight + (item * conv.channels + column) * count;
  for (int64_t k = 0; k < count; ++k) {
    float lane[kWidth];
    store(lane, grad_weight[k]);
    for (int64_t c = 0; c < lanes; ++c) weight[c * count + k] = lane[c];
  }
  if (job.bias) store(job.bias + item * conv.channels + column, grad_bias, lanes);
}

void conv_backward_range(const ConvBackwardJob& job, int64_t begin, int64_t end) {
  const vmp_conv& conv = *job.conv;
  const int64_t blocks = (conv.channels + kWidth - 1) / kWidth;
  Scratch memory(conv.length * kWidth, job.status);
  if (!memory) return;
  float* inner = memory.take(conv.length * kWidth);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t column = task % blocks * kWidth;
    conv_backward_block(job, task / blocks, column, smaller(kWidth, conv.channels - column), inner);
  }
}

}  // namespace
