// The kernels that each instruction set implements, and the jobs that they work on.
#pragma once

#include "vmp_ops.h"

namespace vmp {

// A thread sets a job's `status` if it cannot allocate scratch memory. The job's outputs are then invalid.
struct ScanJob {  // task i: batch item i / blocks, channel block i % blocks
  const vmp_scan* scan;
  bool bidirectional;
  vmp_output y;
  int* status;
};

// The tasks depend on the shapes alone, not on the number of threads, so that the sums do not depend on it either.
struct ScanBackwardJob {  // task i: batch item i / slices, the i % slices-th share of the channel blocks
  const vmp_scan* scan;
  bool bidirectional;
  vmp_input grad_y;
  const vmp_scan_grads* grads;
  int64_t slices;
  float *B, *C;               // (tasks, length, states): each task's share of the sum over channels
  float *A, *A_b, *D, *bias;  // (batch, ...): each batch item's share; D and bias are null if not needed
  int* status;
};

struct ConvJob {  // task i: batch item i / spans, the i % spans-th span of kConvSpan steps
  const vmp_conv* conv;
  vmp_output y;
  int* status;
};
constexpr int64_t kConvSpan = 64;

struct ConvBackwardJob {  // task i: batch item i / blocks, channel block i % blocks
  const vmp_conv* conv;
  vmp_input grad_y;
  const vmp_conv_grads* grads;
  float *weight, *bias;  // (batch, ...): each batch item's share; bias is null if not needed
  int* status;
};

struct Kernels {
  const char* isa;
  int64_t width;  // number of channels in a block
  void (*scan)(const ScanJob&, int64_t begin, int64_t end);
  void (*scan_backward)(const ScanBackwardJob&, int64_t begin, int64_t end);
  void (*conv)(const ConvJob&, int64_t begin, int64_t end);
  void (*conv_backward)(const ConvBackwardJob&, int64_t begin, int64_t end);
  void (*exp)(const float* in, float* out, int64_t n);
  void (*decay)(const float* delta, float rate, float* out, int64_t n);
  void (*softplus)(const float* in, float* out, int64_t n);
  void (*silu)(const float* in, float* out, int64_t n);
};

extern const Kernels kAvx512;
extern const Kernels kAvx2;
extern const Kernels kNeon;
extern const Kernels kScalar;

}  // namespace vmp
