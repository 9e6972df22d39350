// The scan and the convolution as TVM packed functions, which write into tensors of the caller. They check their
// tensors and call the same native kernels as PyTorch. A bundle's model.so is linked with them and calls them by name.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/optional.h>

#include "vmp_ops.h"

// The same declarations as in tvm/runtime/c_backend_api.h, which would be the only header of TVM that this file needs.
extern "C" {
typedef struct {
  void* sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*FTVMParallelLambda)(int task_id, TVMParallelGroupEnv* environment, void* data);
typedef int (*FTVMBackendParallelLaunch)(FTVMParallelLambda function, void* data, int num_task);

// TVM sets it when it loads the module. It is weak because the module's generated code has the same variable.
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

// Use the threads on which TVM runs the rest of the model, so that two pools do not compete for the cores.
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

// Return the data of a tensor after checking its shape, which the native kernels do not check.
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

// Return the columns `at` .. `at + columns - 1` of a tensor (batch, length, ...). Matrix products that share their
// input write into one tensor.
vmp_input sequence(const TensorView& t, int64_t at, int64_t batch, int64_t length, int64_t columns, const char* what) {
  require(t.ndim() == 3 && at >= 0 && at + columns <= t.size(2), what);
  const int64_t row = t.size(2);
  return {array(t, {batch, length, row}, what) + at, length * row, row};
}

vmp_output result(const TensorView& y, int64_t batch, int64_t length, int64_t channels) {
  float* data = const_cast<float*>(array(y, {batch, length, channels}, "the result"));
  return {data, length * channels, channels};
}

void check(int code) {
  if (code != VMP_OK) TVM_FFI_THROW(RuntimeError) << vmp_ops_error(code);
}

// The tensors of both scans. Each `_at` is the first column of its tensor that belongs to the scan.
struct ScanTensors {
  TensorView x, dt, A, B, C;
  Optional<TensorView> D, z, dt_bias;
  int64_t x_at, dt_at, B_at, C_at, z_at;
};

vmp_scan make_scan(const ScanTensors& t, int64_t first_input, int64_t mask) {
  require(t.x.ndim() == 3, "x");
  require(t.A.ndim() == 2, "A");
  const int64_t batch = t.x.size(0), length = t.x.size(1), channels = t.A.size(0), states = t.A.size(1);
  vmp_scan s{};
  s.batch = batch;
  s.length = length;
  s.channels = channels;
  s.states = states;
  s.x = sequence(t.x, t.x_at, batch, length, channels, "x");
  s.dt = sequence(t.dt, t.dt_at, batch, length, channels, "dt");
  s.B = sequence(t.B, t.B_at, batch, length, states, "B");
  s.C = sequence(t.C, t.C_at, batch, length, states, "C");
  if (t.z.has_value()) s.z = sequence(*t.z, t.z_at, batch, length, channels, "z");
  s.A = array(t.A, {channels, states}, "A");
  s.D = array(t.D, {channels}, "D");
  s.dt_bias = array(t.dt_bias, {channels}, "dt_bias");
  s.first_input = first_input != 0;
  s.mask = mask != 0;
  return s;
}

// Set where a scan or a convolution starts, and where its last state goes, both (batch, rows, columns).
template <class Job>
void carry(Job& job, const Optional<TensorView>& before, const TensorView& after, int64_t rows, int64_t columns) {
  job.state = array(before, {job.batch, rows, columns}, "state");
  job.last_state = const_cast<float*>(array(after, {job.batch, rows, columns}, "the last state"));
}

void selective_scan(TensorView x, TensorView dt, TensorView A, TensorView B, TensorView C, Optional<TensorView> D,
                    Optional<TensorView> z, Optional<TensorView> dt_bias, int64_t x_at, int64_t dt_at, int64_t B_at,
                    int64_t C_at, int64_t z_at, int64_t reverse, int64_t first_input, int64_t mask, TensorView y) {
  vmp_scan scan = make_scan({x, dt, A, B, C, D, z, dt_bias, x_at, dt_at, B_at, C_at, z_at}, first_input, mask);
  scan.reverse = reverse != 0;
  check(vmp_selective_scan(&scan, result(y, scan.batch, scan.length, scan.channels), &kThreads));
}

void selective_scan_with_state(TensorView x, TensorView dt, TensorView A, TensorView B, TensorView C,
                               Optional<TensorView> D, Optional<TensorView> z, Optional<TensorView> dt_bias,
                               Optional<TensorView> state, int64_t x_at, int64_t dt_at, int64_t B_at, int64_t C_at,
                               int64_t z_at, int64_t reverse, int64_t first_input, int64_t mask, TensorView y,
                               TensorView last) {
  vmp_scan scan = make_scan({x, dt, A, B, C, D, z, dt_bias, x_at, dt_at, B_at, C_at, z_at}, first_input, mask);
  scan.reverse = reverse != 0;
  carry(scan, state, last, scan.channels, scan.states);
  check(vmp_selective_scan(&scan, result(y, scan.batch, scan.length, scan.channels), &kThreads));
}

void bi_selective_scan(TensorView x, TensorView dt, TensorView A, TensorView A_b, TensorView B, TensorView C,
                       Optional<TensorView> D, Optional<TensorView> z, Optional<TensorView> dt_bias, int64_t x_at,
                       int64_t dt_at, int64_t B_at, int64_t C_at, int64_t z_at, int64_t first_input, int64_t mask,
                       TensorView y) {
  vmp_scan scan = make_scan({x, dt, A, B, C, D, z, dt_bias, x_at, dt_at, B_at, C_at, z_at}, first_input, mask);
  scan.A_b = array(A_b, {scan.channels, scan.states}, "A_b");
  check(vmp_bi_selective_scan(&scan, result(y, scan.batch, scan.length, scan.channels), &kThreads));
}

void bi_selective_scan_with_state(TensorView x, TensorView dt, TensorView A, TensorView A_b, TensorView B, TensorView C,
                                  Optional<TensorView> D, Optional<TensorView> z, Optional<TensorView> dt_bias,
                                  Optional<TensorView> state, int64_t x_at, int64_t dt_at, int64_t B_at, int64_t C_at,
                                  int64_t z_at, int64_t first_input, int64_t mask, TensorView y, TensorView last) {
  vmp_scan scan = make_scan({x, dt, A, B, C, D, z, dt_bias, x_at, dt_at, B_at, C_at, z_at}, first_input, mask);
  scan.A_b = array(A_b, {scan.channels, scan.states}, "A_b");
  carry(scan, state, last, scan.channels, scan.states);
  check(vmp_bi_selective_scan(&scan, result(y, scan.batch, scan.length, scan.channels), &kThreads));
}

vmp_conv make_conv(const TensorView& x, const TensorView& weight, const Optional<TensorView>& bias, int64_t x_at,
                   int64_t reverse) {
  require(x.ndim() == 3, "x");
  require(weight.ndim() == 2, "weight");
  vmp_conv conv{};
  conv.batch = x.size(0);
  conv.length = x.size(1);
  conv.channels = weight.size(0);
  conv.taps = weight.size(1);
  conv.x = sequence(x, x_at, conv.batch, conv.length, conv.channels, "x");
  conv.weight = array(weight, {conv.channels, conv.taps}, "weight");
  conv.bias = array(bias, {conv.channels}, "bias");
  conv.reverse = reverse != 0;
  return conv;
}

void causal_conv_silu(TensorView x, TensorView weight, Optional<TensorView> bias, int64_t x_at, int64_t reverse,
                      TensorView y) {
  const vmp_conv conv = make_conv(x, weight, bias, x_at, reverse);
  check(vmp_causal_conv_silu(&conv, result(y, conv.batch, conv.length, conv.channels), &kThreads));
}

void causal_conv_silu_with_state(TensorView x, TensorView weight, Optional<TensorView> bias, Optional<TensorView> state,
                                 int64_t x_at, int64_t reverse, TensorView y, TensorView last) {
  vmp_conv conv = make_conv(x, weight, bias, x_at, reverse);
  carry(conv, state, last, conv.taps - 1, conv.channels);
  check(vmp_causal_conv_silu(&conv, result(y, conv.batch, conv.length, conv.channels), &kThreads));
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_selective_scan, selective_scan);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_bi_selective_scan, bi_selective_scan);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_causal_conv_silu, causal_conv_silu);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_selective_scan_with_state, selective_scan_with_state);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_bi_selective_scan_with_state, bi_selective_scan_with_state);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(vmp_causal_conv_silu_with_state, causal_conv_silu_with_state);
