// The C interface of the convolution: it launches the kernels of conv.cuh.
#include "conv.cuh"
#include "launch.h"

namespace vmp_cuda {

template <typename T, int kTaps>
__global__ void __launch_bounds__(kLanes* kConvRuns) causal_conv_silu_kernel(const ConvJob job) {
  causal_conv_silu<T, kTaps>(job);
}

using ConvKernel = void (*)(ConvJob);

// The models have four taps. Longer convolutions share one kernel.
template <typename T>
ConvKernel conv_of(int64_t taps) {
  return taps <= 4 ? causal_conv_silu_kernel<T, 4> : causal_conv_silu_kernel<T, VMP_CUDA_MAX_TAPS>;
}

ConvKernel conv_kernel(const vmp_cuda_conv& conv) {
  if (conv.dtype == VMP_CUDA_FLOAT16) return conv_of<__half>(conv.taps);
  if (conv.dtype == VMP_CUDA_BFLOAT16) return conv_of<__nv_bfloat16>(conv.taps);
  return conv_of<float>(conv.taps);
}

bool is_valid(const vmp_cuda_conv& conv) {
  return conv.batch > 0 && conv.length > 0 && conv.channels > 0 && conv.taps > 0 && conv.taps <= VMP_CUDA_MAX_TAPS &&
         is_dtype(conv.dtype) && conv.x.data && conv.weight;
}

}  // namespace vmp_cuda

int vmp_cuda_causal_conv_silu(const vmp_cuda_conv* conv, vmp_cuda_output y, void* stream) {
  using namespace vmp_cuda;
  if (!conv || !is_valid(*conv) || !y.data) return VMP_CUDA_ERROR_ARGUMENT;
  const int64_t channel_blocks = (conv->channels - 1) / kLanes + 1;
  const int64_t step_blocks = (conv->length - 1) / (kConvRuns * kConvSteps) + 1;
  if (channel_blocks > kMostBlocks || step_blocks > kMostBlocks / channel_blocks ||
      conv->batch > kMostBlocks / (channel_blocks * step_blocks)) {
    return VMP_CUDA_ERROR_ARGUMENT;
  }
  const ConvJob job{*conv, y, static_cast<int>(channel_blocks), static_cast<int>(step_blocks)};
  const dim3 grid(conv->batch * channel_blocks * step_blocks), block(kLanes, kConvRuns);
  return status_of(launch(conv_kernel(*conv), grid, block, 0, stream, job));
}
