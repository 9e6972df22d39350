// The scan and the convolution as ExecuTorch kernels (out variants). They check their tensors and call the same native
// kernels as PyTorch.
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <optional>
#include <string_view>

#include "vmp_ops.h"

namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::KernelRuntimeContext;
using OptionalTensor = std::optional<Tensor>;

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

Tensor& selective_scan_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& dt, const Tensor& A,
                           const Tensor& B, const Tensor& C, const OptionalTensor& D, const OptionalTensor& z,
                           const OptionalTensor& dt_bias, bool reverse, std::string_view initial_state,
                           bool mask_diagonal, Tensor& out) {
  vmp_scan scan;
  ET_KERNEL_CHECK(ctx, fill_scan(scan, x, dt, A, nullptr, B, C, D, z, dt_bias, initial_state), InvalidArgument, out);
  scan.reverse = reverse;
  scan.mask = mask_diagonal;
  ET_KERNEL_CHECK(ctx, executorch::runtime::resize_tensor(out, x.sizes()) == Error::Ok, InvalidArgument, out);
  const vmp_threads threads = pool();
  ET_KERNEL_CHECK(ctx, vmp_selective_scan(&scan, sequence_out(out), &threads) == VMP_OK, Internal, out);
  return out;
}

Tensor& bi_selective_scan_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& dt, const Tensor& A,
                              const Tensor& A_b, const Tensor& B, const Tensor& C, const OptionalTensor& D,
                              const OptionalTensor& z, const OptionalTensor& dt_bias, std::string_view initial_state,
                              bool mask_backward, Tensor& out) {
  vmp_scan scan;
  ET_KERNEL_CHECK(ctx, fill_scan(scan, x, dt, A, &A_b, B, C, D, z, dt_bias, initial_state), InvalidArgument, out);
  scan.mask = mask_backward;
  ET_KERNEL_CHECK(ctx, executorch::runtime::resize_tensor(out, x.sizes()) == Error::Ok, InvalidArgument, out);
  const vmp_threads threads = pool();
  ET_KERNEL_CHECK(ctx, vmp_bi_selective_scan(&scan, sequence_out(out), &threads) == VMP_OK, Internal, out);
  return out;
}

Tensor& causal_conv_silu_out(KernelRuntimeContext& ctx, const Tensor& x, const Tensor& weight,
                             const OptionalTensor& bias, bool reverse, Tensor& out) {
  ET_KERNEL_CHECK(ctx, is_plain(x, 3) && is_plain(weight, 2) && weight.size(0) == x.size(2), InvalidArgument, out);
  ET_KERNEL_CHECK(ctx, has_length(bias, x.size(2)), InvalidArgument, out);
  ET_KERNEL_CHECK(ctx, executorch::runtime::resize_tensor(out, x.sizes()) == Error::Ok, InvalidArgument, out);
  vmp_conv conv{};
  conv.batch = x.size(0);
  conv.length = x.size(1);
  conv.channels = x.size(2);
  conv.taps = weight.size(1);
  conv.x = sequence(x);
  conv.weight = weight.const_data_ptr<float>();
  conv.bias = data(bias);
  conv.reverse = reverse;
  const vmp_threads threads = pool();
  ET_KERNEL_CHECK(ctx, vmp_causal_conv_silu(&conv, sequence_out(out), &threads) == VMP_OK, Internal, out);
  return out;
}

// Call an operator after checking that a damaged program gives it all arguments, and tensors that have memory. The
// SDK's own wrapper takes both for granted.
template <class Function>
void call_checked(KernelRuntimeContext& ctx, executorch::runtime::Span<EValue*> arguments) {
  using Wrapped = executorch::extension::WrapUnboxedIntoFunctor<Function>;
  bool valid = arguments.size() >=
               executorch::extension::kernel_util_internal::size<typename Wrapped::ContextRemovedArgsType>::value;
  for (const EValue* argument : arguments)
    valid = valid && argument &&
            (!argument->isTensor() || argument->toTensor().numel() == 0 || argument->toTensor().const_data_ptr());
  if (valid) return Wrapped::call(ctx, arguments);
  ctx.fail(Error::InvalidProgram);
}

template <class Function>
bool add(const char* name, Function) {
  const executorch::runtime::Kernel kernel(name, call_checked<Function>);
  return executorch::runtime::register_kernel(kernel) == Error::Ok;
}

constexpr char kScan[] = "vmp::selective_scan.out", kBiScan[] = "vmp::bi_selective_scan.out",
               kConv[] = "vmp::causal_conv_silu.out";
const bool added[] = {add(kScan, EXECUTORCH_FN(selective_scan_out, kScan)),
                      add(kBiScan, EXECUTORCH_FN(bi_selective_scan_out, kBiScan)),
                      add(kConv, EXECUTORCH_FN(causal_conv_silu_out, kConv))};

}  // namespace
