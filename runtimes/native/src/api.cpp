// The C interface: check arguments, divide the work into tasks, and add up the tasks' shares of sums.
#include "vmp_ops.h"

#include <cstdlib>
#include <new>

#include "isa.h"
#include "threads.h"

namespace {

using vmp::Kernels;

int64_t blocks_of(int64_t channels, const Kernels& kernels) { return (channels + kernels.width - 1) / kernels.width; }

bool valid(const vmp_scan* scan, bool bidirectional) {
  return scan && scan->batch > 0 && scan->length > 0 && scan->channels > 0 && scan->states > 0 && scan->x.data &&
         scan->dt.data && scan->A && scan->B.data && scan->C.data && (!bidirectional || scan->A_b);
}

bool valid(const vmp_conv* conv) {
  return conv && conv->batch > 0 && conv->length > 0 && conv->channels > 0 && conv->taps > 0 &&
         conv->taps <= VMP_MAX_TAPS && conv->x.data && conv->weight;
}

// Call a kernel's range function through the C callback of a thread pool.
template <typename Job>
struct Call {
  void (*range)(const Job&, int64_t, int64_t);
  const Job* job;
  static void run(void* self, int64_t begin, int64_t end) {
    const Call& call = *static_cast<Call*>(self);
    call.range(*call.job, begin, end);
  }
};

template <typename Job>
void spread(const vmp_threads* threads, int64_t tasks, void (*range)(const Job&, int64_t, int64_t), const Job& job) {
  Call<Job> call{range, &job};
  vmp::run_parallel(threads, tasks, Call<Job>::run, &call);
}

// The shares of sums: for each of `groups` results of `size` elements, `count` shares. If there is only one share, it
// is the result itself and needs no memory.
class Shares {
 public:
  Shares(float* result, int64_t groups, int64_t count, int64_t size)
      : result_(result), groups_(groups), count_(count), size_(size) {
    if (result && count > 1) own_ = new (std::nothrow) float[static_cast<size_t>(groups * count * size)];
  }
  ~Shares() { delete[] own_; }
  Shares(const Shares&) = delete;
  Shares& operator=(const Shares&) = delete;

  bool failed() const { return result_ && count_ > 1 && !own_; }
  float* data() const { return own_ ? own_ : result_; }
  void add_up(const vmp_threads* threads) {
    if (own_) vmp::run_parallel(threads, groups_ * size_, add_range, this);
  }

 private:
  static void add_range(void* self, int64_t begin, int64_t end) {
    const Shares& s = *static_cast<Shares*>(self);
    for (int64_t i = begin; i < end; ++i) {
      const float* share = s.own_ + i / s.size_ * s.count_ * s.size_ + i % s.size_;
      float sum = 0.0f;
      for (int64_t k = 0; k < s.count_; ++k) sum += share[k * s.size_];
      s.result_[i] = sum;
    }
  }

  float* result_;
  float* own_ = nullptr;
  int64_t groups_, count_, size_;
};

int scan(const vmp_scan* in, bool bidirectional, vmp_output y, const vmp_threads* threads) {
  if (!valid(in, bidirectional) || !y.data) return VMP_ERROR_ARGUMENT;
  const Kernels* kernels = vmp::active_kernels();
  if (!kernels) return VMP_ERROR_ISA;
  int status = VMP_OK;
  const vmp::ScanJob job{in, bidirectional, y, &status};
  spread(threads, in->batch * blocks_of(in->channels, *kernels), kernels->scan, job);
  return status;
}

int scan_backward(const vmp_scan* in, bool bidirectional, vmp_input grad_y, const vmp_scan_grads* grads,
                  const vmp_threads* threads) {
  if (!valid(in, bidirectional) || !grad_y.data || !grads || !grads->x.data || !grads->dt.data || !grads->B ||
      !grads->C || !grads->A || (bidirectional && !grads->A_b) || (in->z.data && !grads->z.data) ||
      (in->state && !grads->state)) {
    return VMP_ERROR_ARGUMENT;
  }
  const Kernels* kernels = vmp::active_kernels();
  if (!kernels) return VMP_ERROR_ISA;
  // Make at least 16 tasks, so that small batches use several threads; more would make the shares of B and C large.
  const int64_t blocks = blocks_of(in->channels, *kernels), at_least = (16 + in->batch - 1) / in->batch;
  const int64_t slices = at_least < blocks ? at_least : blocks;
  const int64_t projections = in->length * in->states, rates = in->channels * in->states;
  Shares B(grads->B, in->batch, slices, projections), C(grads->C, in->batch, slices, projections);
  Shares A(grads->A, 1, in->batch, rates), A_b(bidirectional ? grads->A_b : nullptr, 1, in->batch, rates);
  Shares D(in->D ? grads->D : nullptr, 1, in->batch, in->channels);
  Shares bias(in->dt_bias ? grads->dt_bias : nullptr, 1, in->batch, in->channels);
  Shares* const all[] = {&B, &C, &A, &A_b, &D, &bias};
  for (const Shares* shares : all) {
    if (shares->failed()) return VMP_ERROR_MEMORY;
  }
  int status = VMP_OK;
  const vmp::ScanBackwardJob job{in,       bidirectional, grad_y,     grads,    slices,      B.data(),
                                 C.data(), A.data(),      A_b.data(), D.data(), bias.data(), &status};
  spread(threads, in->batch * slices, kernels->scan_backward, job);
  if (status != VMP_OK) return status;
  for (Shares* shares : all) shares->add_up(threads);
  return VMP_OK;
}

template <typename... Arguments>
int map(void (*Kernels::*function)(Arguments...), Arguments... arguments) {
  const Kernels* kernels = vmp::active_kernels();
  if (!kernels) return VMP_ERROR_ISA;
  (kernels->*function)(arguments...);
  return VMP_OK;
}

}  // namespace

extern "C" {

int vmp_ops_abi(void) { return VMP_OPS_ABI; }

const char* vmp_ops_error(int code) {
  switch (code) {
    case VMP_OK: return "no error";
    case VMP_ERROR_ARGUMENT: return "a size is out of range or a needed array is missing";
    case VMP_ERROR_MEMORY: return "out of memory";
    case VMP_ERROR_ISA: return "VMP_OPS_ISA names an instruction set that is unknown or not this CPU's";
    default: return "unknown error";
  }
}

int vmp_selective_scan(const vmp_scan* in, vmp_output y, const vmp_threads* threads) {
  return scan(in, false, y, threads);
}

int vmp_bi_selective_scan(const vmp_scan* in, vmp_output y, const vmp_threads* threads) {
  return scan(in, true, y, threads);
}

int vmp_selective_scan_backward(const vmp_scan* in, vmp_input grad_y, const vmp_scan_grads* grads,
                                const vmp_threads* threads) {
  return scan_backward(in, false, grad_y, grads, threads);
}

int vmp_bi_selective_scan_backward(const vmp_scan* in, vmp_input grad_y, const vmp_scan_grads* grads,
                                   const vmp_threads* threads) {
  return scan_backward(in, true, grad_y, grads, threads);
}

int vmp_causal_conv_silu(const vmp_conv* conv, vmp_output y, const vmp_threads* threads) {
  if (!valid(conv) || !y.data) return VMP_ERROR_ARGUMENT;
  const Kernels* kernels = vmp::active_kernels();
  if (!kernels) return VMP_ERROR_ISA;
  int status = VMP_OK;
  const vmp::ConvJob job{conv, y, &status};
  spread(threads, conv->batch * ((conv->length + vmp::kConvSpan - 1) / vmp::kConvSpan), kernels->conv, job);
  return status;
}

int vmp_causal_conv_silu_backward(const vmp_conv* conv, vmp_input grad_y, const vmp_conv_grads* grads,
                                  const vmp_threads* threads) {
  if (!valid(conv) || !grad_y.data || !grads || !grads->x.data || !grads->weight || (conv->state && !grads->state)) {
    return VMP_ERROR_ARGUMENT;
  }
  const Kernels* kernels = vmp::active_kernels();
  if (!kernels) return VMP_ERROR_ISA;
  Shares weight(grads->weight, 1, conv->batch, conv->channels * conv->taps);
  Shares bias(conv->bias ? grads->bias : nullptr, 1, conv->batch, conv->channels);
  if (weight.failed() || bias.failed()) return VMP_ERROR_MEMORY;
  int status = VMP_OK;
  const vmp::ConvBackwardJob job{conv, grad_y, grads, weight.data(), bias.data(), &status};
  spread(threads, conv->batch * blocks_of(conv->channels, *kernels), kernels->conv_backward, job);
  if (status != VMP_OK) return status;
  weight.add_up(threads);
  bias.add_up(threads);
  return VMP_OK;
}

int vmp_exp(const float* in, float* out, int64_t n) { return map(&Kernels::exp, in, out, n); }
int vmp_decay(const float* delta, float rate, float* out, int64_t n) {
  return map(&Kernels::decay, delta, rate, out, n);
}
int vmp_softplus(const float* in, float* out, int64_t n) { return map(&Kernels::softplus, in, out, n); }
int vmp_silu(const float* in, float* out, int64_t n) { return map(&Kernels::silu, in, out, n); }

}  // extern "C"
