// vmp's operators as TVM packed functions in destination-passing style: checks, then the same native kernels that
// PyTorch calls. Linked into a bundle's model.so, which calls them by name.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/optional.h>

#include "vmp_ops.h"

// As tvm/runtime/c_backend_api.h declares them; by that header alone this file would need TVM's own.
extern "C" {
typedef struct {
  void* sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*FTVMParallelLambda)(int task_id, TVMParallelGroupEnv* environment, void* data);
typedef int (*FTVMBackendParallelLaunch)(FTVMParallelLambda function, void* data, int num_task);

// Filled in by whoever loads the module. Weak: the module's generated functions have the same variable.
__attribute__((weak, visibility("default"))) FTVMBackendParallelLaunch __TVMBackendParallelLaunch = nullptr;
}

namespace {

using tvm::ffi::Optional;
using tvm::ffi::TensorView;

struct Work {
  int64_t count;
  vmp_range_fn range;
  void* job;
};

// On the threads that TVM runs the rest of the model on, so that two pools don't compete for the cores.
void parallel_for(void*, int64_t count, vmp_range_fn range, void* job) {
  if (!__TVMBackendParallelLaunch || count == 1) return range(job, 0, count);
  Work work{count, range, job};
  const auto share = [](int task, TVMParallelGroupEnv* environment, void* data) {
    const Work& w = *static_cast<Work*>(data);
    const int64_t tasks = environment->num_task;
    w.range(w.job, task * w.count / tasks, (task + 1) * w.count / tasks);
    return 0;
  };
  __TVMBackendParallelLaunch(share, &work, 0);
}

const vmp_threads kThreads{1, parallel_for, nullptr};

void require(bool fits, const char* what) {
  if (!fits) TVM_FFI_THROW(ValueError) << what << " has a shape, type or layout that the operator cannot take";
}

// Shapes are checked here because the native kernels trust their pointers.
const float* array(const TensorView& t, std::initializer_list<int64_t> shape, const char* what) {
  const DLDataType type = t.dtype();
  bool fits = type.code == kDLFloat && type.bits == 32 && type.lanes == 1 && t.device().device_type == kDLCPU &&
              t.IsContiguous() && t.ndim() == static_cast<int32_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = t.size(i) == shape.begin()[i];
  require(fits, what);
  return static_cast<const float*>(t.data_ptr());
}

const float* array(const Optional<TensorView>& t, std::initializer_list<int64_t> shape, const char* what) {
  return t.has_value() ? array(*t, shape, what) : nullptr;
}

vmp_input sequence(const float* data, int64_t length, int64_t columns) { return {data, length * columns, columns}; }

vmp_output result(const TensorView& y, int64_t batch, int64_t length, int64_t channels) {
  float* data = const_cast<float*>(array(y, {batch, length, channels}, "the result"));
  return {data, length * channels, channels};
}

void check(int code) {
  if (code != VMP_OK) TVM_FFI_THROW(RuntimeError) << vmp_ops_error(code);
}

vmp_scan make_scan(const TensorView& x, const TensorView& dt, const TensorView& A, const TensorView* A_b,
                   const TensorView& B, const TensorView& C, const Optional<TensorView>& D,
                   const Optional<TensorView>& z, const Optional<TensorView>& dt_bias) {
  require(x.ndim() == 3, "x");
  require(A.ndim() == 2, "A");
  const int64_t batch = x.size(0), length = x.size(1), channels = x.size(2), states = A.size(1);
  vmp_scan s{};
  s.batch = batch;
  s.length = length;
  s.channels = channels;
  s.states = states;
  s.x = sequence(array(x, {batch, length, channels}, "x"), length, channels);
  s.dt = sequence(array(dt, {batch, length, channels}, "dt"), length, channels);
  s.B = sequence(array(B, {batch, length, states}, "B"), length, states);
  s.C = sequence(array(C, {batch, length, states}, "C"), length, states);
  s.z = sequence(array(z, {batch, length, channels}, "z"), length, channels);
  s.A = array(A, {channels, states}, "A");
  s.A_b = A_b ? array(*A_b, {channels, states}, "A_b") : nullptr;
  s.D = array(D, {channels}, "D");
  s.dt_bias = array(dt_bias, {channels}, "dt_bias");
  return s;
}

void selective_scan(TensorView x, TensorView dt, TensorView A, TensorView B, TensorView C, Optional<TensorView> D,
                    Optional<TensorView> z, Optional<TensorView> dt_bias, int64_t reverse, int64_t first_input,
                    int64_t mask, TensorView y) {
  vmp_scan scan = make_scan(x, dt, A, nullptr, B, C, D, z, dt_bias);
  scan.reverse = reverse != 0;
  scan.first_input = first_input != 0;
  scan.mask = mask != 0;
  check(vmp_selective_scan(&scan, result(y, scan.batch, scan.length, scan.channels), &kThreads));
}

void bi_selective_scan(TensorView x, TensorView dt, TensorView A, TensorView A_b, TensorView B, TensorView C,
                       Optional<TensorView> D, Optional<TensorView> z, Optional<TensorView> dt_bias,
                       int64_t first_input, int64_t mask, TensorView y) {
  vmp_scan scan = make_scan(x, dt, A, &A_b, B, C, D, z, dt_bias);
  scan.first_input = first_input != 0;
  scan.mask = mask != 0;
  check(vmp_bi_selective_scan(&scan, result(y, scan.batch, scan.length, scan.channels), &kThreads));
}

void causal_conv_silu(TensorView x, TensorView weight, Optional<TensorView> bias, int64_t reverse, TensorView y) {
  require(x.ndim() == 3, "x");
  require(weight.ndim() == 2, "weight");
  vmp_conv conv{};
  conv.batch = x.size(0);
  conv.length = x.size(1);
  conv.channels = x.size(2);
  conv.taps = weight.size(1);
  conv.x = sequence(array(x, {conv.batch, conv.length, conv.channels}, "x"), conv.length, conv.channels);
  conv.weight = array(weight, {conv.channels, conv.taps}, "weight");
  conv.bias = array(bias, {conv.channels}, "bias");
  conv.reverse = reverse != 0;
  check(vmp_causal_conv_silu(&conv, result(y, conv.batch, conv.length, conv.channels), &kThreads));
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_selective_scan, selective_scan);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_bi_selective_scan, bi_selective_scan);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_causal_conv_silu, causal_conv_silu);
