// The scan and the convolution as ExecuTorch kernels (out variants). They check their tensors and call the same native
// kernels as PyTorch.
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "vmp_ops.h"

namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::KernelRuntimeContext;
using OptionalTensor = std::optional<Tensor>;
using Pair = std::tuple<Tensor&, Tensor&>;
namespace sdk = executorch::extension::kernel_util_internal;

void parallel_for(void*, int64_t count, vmp_range_fn range, void* job) {
  executorch::extension::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) { range(job, begin, end); });
}

vmp_threads pool() { return {static_cast<int32_t>(executorch::extension::get_thread_count()), parallel_for, nullptr}; }

bool is_plain(const Tensor& t, int64_t dims) {
  return t.dim() == dims && t.scalar_type() == ScalarType::Float && executorch::runtime::tensor_is_default_dim_order(t);
}

bool is_plain(const OptionalTensor& t, int64_t dims) { return !t || is_plain(*t, dims); }

bool has_shape(const Tensor& t, int64_t a, int64_t b) { return is_plain(t, 2) && t.size(0) == a && t.size(1) == b; }

bool has_shape(const Tensor& t, int64_t a, int64_t b, int64_t c) {
  return is_plain(t, 3) && t.size(0) == a && t.size(1) == b && t.size(2) == c;
}

bool has_length(const OptionalTensor& t, int64_t n) { return !t || (is_plain(*t, 1) && t->size(0) == n); }

const float* data(const OptionalTensor& t) { return t ? t->const_data_ptr<float>() : nullptr; }

// Return a view of a contiguous tensor (batch, length, columns).
vmp_input sequence(const Tensor& t) { return {t.const_data_ptr<float>(), t.size(1) * t.size(2), t.size(2)}; }

vmp_output sequence_out(Tensor& t) { return {t.mutable_data_ptr<float>(), t.size(1) * t.size(2), t.size(2)}; }

// Check the shapes, which the native kernels do not check.
bool fill_scan(vmp_scan& s, const Tensor& x, const Tensor& dt, const Tensor& A, const Tensor* A_b, const Tensor& B,
               const Tensor& C, const OptionalTensor& D, const OptionalTensor& z, const OptionalTensor& dt_bias,
               std::string_view initial_state) {
  if (!is_plain(x, 3) || !is_plain(A, 2)) return false;
  const int64_t batch = x.size(0), length = x.size(1), channels = x.size(2), states = A.size(1);
  const bool fits = has_shape(dt, batch, length, channels) && has_shape(A, channels, states) &&
                    (!A_b || has_shape(*A_b, channels, states)) && has_shape(B, batch, length, states) &&
                    has_shape(C, batch, length, states) && has_length(D, channels) && has_length(dt_bias, channels) &&
                    (!z || has_shape(*z, batch, length, channels));
  const bool first_input = initial_state == "first_input";
  if (!fits || (!first_input && initial_state != "zero")) return false;
  s = vmp_scan{};
  s.batch = batch;
  s.length = length;
  s.channels = channels;
  s.states = states;
  s.x = sequence(x);
  s.dt = sequence(dt);
  s.B = sequence(B);
  s.C = sequence(C);
  if (z) s.z = sequence(*z);
  s.A = A.const_data_ptr<float>();
  s.A_b = A_b ? A_b->const_data_ptr<float>() : nullptr;
  s.D = data(D);
  s.dt_bias = data(dt_bias);
  s.first_input = first_input;
  return true;
}

// Where a scan or a convolution starts, and where its last state goes, both (batch, rows, columns).
struct Carried {
  const OptionalTensor& before;
  Tensor& after;
};

// Check the states, make `after` as large as it will be, and return whether that could be done.
bool fits(const Carried& carried, int64_t batch, int64_t rows, int64_t columns) {
  const executorch::aten::SizesType sizes[] = {static_cast<executorch::aten::SizesType>(batch),
                                               static_cast<executorch::aten::SizesType>(rows),
                                               static_cast<executorch::aten::SizesType>(columns)};
  return (!carried.before || has_shape(*carried.before, batch, rows, columns)) &&
         executorch::runtime::resize_tensor(carried.after, {sizes, 3}) == Error::Ok && is_plain(carried.after, 3);
}

// Run one of the native scans, with states or without.
template <class Native>
void run_scan(KernelRuntimeContext& ctx, Native native, vmp_scan& scan, const Tensor& x, Tensor& out,
              const Carried* carried = nullptr) {
  ET_KERNEL_CHECK(ctx, !carried || fits(*carried, scan.batch, scan.channels, scan.states), InvalidArgument, );
  ET_KERNEL_CHECK(ctx, executorch::runtime::resize_tensor(out, x.sizes()) == Error::Ok, InvalidArgument, );
  if (carried) {
    scan.state = data(carried->before);
    scan.last_state = carried->after.mutable_data_ptr<float>();
  }
  const vmp_threads threads = pool();
  ET_KERNEL_CHECK(ctx, native(&scan, sequence_out(out), &threads) == VMP_OK, Internal, );
}

// Run the native convolution, with states or without.
void run_conv(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
              bool reverse, Tensor& out, const Carried* carried = nullptr) {
  ET_KERNEL_CHECK(ctx, is_plain(x, 3) && is_plain(weight, 2) && weight.size(0) == x.size(2), InvalidArgument, );
  ET_KERNEL_CHECK(ctx, has_length(bias, x.size(2)), InvalidArgument, );
  vmp_conv conv{};
  conv.batch = x.size(0);
  conv.length = x.size(1);
  conv.channels = x.size(2);
  conv.taps = weight.size(1);
  conv.x = sequence(x);
  conv.weight = weight.const_data_ptr<float>();
  conv.bias = data(bias);
  conv.reverse = reverse;
  ET_KERNEL_CHECK(ctx, !carried || fits(*carried, conv.batch, conv.taps - 1, conv.channels), InvalidArgument, );
  ET_KERNEL_CHECK(ctx, executorch::runtime::resize_tensor(out, x.sizes()) == Error::Ok, InvalidArgument, );
  if (carried) {
    conv.state = data(carried->before);
    conv.last_state = carried->after.mutable_data_ptr<float>();
  }
  const vmp_threads threads = pool();
  ET_KERNEL_CHECK(ctx, vmp_causal_conv_silu(&conv, sequence_out(out), &threads) == VMP_OK, Internal, );
}

Tensor& selective_scan_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& dt, const Tensor& A,
                           const Tensor& B, const Tensor& C, const OptionalTensor& D, const OptionalTensor& z,
                           const OptionalTensor& dt_bias, bool reverse, std::string_view initial_state,
                           bool mask_diagonal, Tensor& out) {
  vmp_scan scan;
  ET_KERNEL_CHECK(ctx, fill_scan(scan, x, dt, A, nullptr, B, C, D, z, dt_bias, initial_state), InvalidArgument, out);
  scan.reverse = reverse;
  scan.mask = mask_diagonal;
  run_scan(ctx, vmp_selective_scan, scan, x, out);
  return out;
}

Pair selective_scan_with_state_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& dt, const Tensor& A,
                                   const Tensor& B, const Tensor& C, const OptionalTensor& D, const OptionalTensor& z,
                                   const OptionalTensor& dt_bias, const OptionalTensor& state, bool reverse,
                                   std::string_view initial_state, bool mask_diagonal, Tensor& out, Tensor& last) {
  const Pair results(out, last);
  const Carried carried{state, last};
  vmp_scan scan;
  ET_KERNEL_CHECK(ctx, fill_scan(scan, x, dt, A, nullptr, B, C, D, z, dt_bias, initial_state), InvalidArgument,
                  results);
  scan.reverse = reverse;
  scan.mask = mask_diagonal;
  run_scan(ctx, vmp_selective_scan, scan, x, out, &carried);
  return results;
}

Tensor& bi_selective_scan_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& dt, const Tensor& A,
                              const Tensor& A_b, const Tensor& B, const Tensor& C, const OptionalTensor& D,
                              const OptionalTensor& z, const OptionalTensor& dt_bias, std::string_view initial_state,
                              bool mask_backward, Tensor& out) {
  vmp_scan scan;
  ET_KERNEL_CHECK(ctx, fill_scan(scan, x, dt, A, &A_b, B, C, D, z, dt_bias, initial_state), InvalidArgument, out);
  scan.mask = mask_backward;
  run_scan(ctx, vmp_bi_selective_scan, scan, x, out);
  return out;
}

Pair bi_selective_scan_with_state_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& dt, const Tensor& A,
                                      const Tensor& A_b, const Tensor& B, const Tensor& C, const OptionalTensor& D,
                                      const OptionalTensor& z, const OptionalTensor& dt_bias,
                                      const OptionalTensor& state, std::string_view initial_state, bool mask_backward,
                                      Tensor& out, Tensor& last) {
  const Pair results(out, last);
  const Carried carried{state, last};
  vmp_scan scan;
  ET_KERNEL_CHECK(ctx, fill_scan(scan, x, dt, A, &A_b, B, C, D, z, dt_bias, initial_state), InvalidArgument, results);
  scan.mask = mask_backward;
  run_scan(ctx, vmp_bi_selective_scan, scan, x, out, &carried);
  return results;
}

Tensor& causal_conv_silu_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& weight,
                             const OptionalTensor& bias, bool reverse, Tensor& out) {
  run_conv(ctx, x, weight, bias, reverse, out);
  return out;
}

Pair causal_conv_silu_with_state_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& weight,
                                     const OptionalTensor& bias, const OptionalTensor& state, bool reverse, Tensor& out,
                                     Tensor& last) {
  const Carried carried{state, last};
  run_conv(ctx, x, weight, bias, reverse, out, &carried);
  return {out, last};
}

// Call an operator after checking that a damaged program gives it all arguments, and tensors that have memory. The
// SDK's own wrapper takes both for granted.
template <class Function>
void call_checked(KernelRuntimeContext& ctx, executorch::runtime::Span<EValue*> arguments) {
  using Arguments = typename executorch::extension::WrapUnboxedIntoFunctor<Function>::ContextRemovedArgsType;
  constexpr size_t count = sdk::size<Arguments>::value;
  bool valid = arguments.size() >= count;
  for (const EValue* argument : arguments)
    valid = valid && argument &&
            (!argument->isTensor() || argument->toTensor().numel() == 0 || argument->toTensor().const_data_ptr());
  if (!valid) return ctx.fail(Error::InvalidProgram);
  // The wrapper's own `call` takes operators with one result alone.
  sdk::call_functor_with_args_from_stack<Function, sdk::count_nonconst_tensors<Arguments>::value>(
      ctx, arguments, std::make_index_sequence<count>(), static_cast<Arguments*>(nullptr));
}

template <class Function>
bool add(const char* name, Function) {
  const executorch::runtime::Kernel kernel(name, call_checked<Function>);
  return executorch::runtime::register_kernel(kernel) == Error::Ok;
}

constexpr char kScan[] = "vmp::selective_scan.out", kScanWithState[] = "vmp::selective_scan_with_state.out",
               kBiScan[] = "vmp::bi_selective_scan.out", kBiScanWithState[] = "vmp::bi_selective_scan_with_state.out",
               kConv[] = "vmp::causal_conv_silu.out", kConvWithState[] = "vmp::causal_conv_silu_with_state.out";
const bool added[] = {
    add(kScan, EXECUTORCH_FN(selective_scan_out, kScan)),
    add(kBiScan, EXECUTORCH_FN(bi_selective_scan_out, kBiScan)),
    add(kConv, EXECUTORCH_FN(causal_conv_silu_out, kConv)),
    add(kScanWithState, EXECUTORCH_FN(selective_scan_with_state_out, kScanWithState)),
    add(kBiScanWithState, EXECUTORCH_FN(bi_selective_scan_with_state_out, kBiScanWithState)),
    add(kConvWithState, EXECUTORCH_FN(causal_conv_silu_with_state_out, kConvWithState)),
};

}  // namespace
