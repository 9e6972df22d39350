// The C interface of the scan: it launches the kernels of scan.cuh.
#include "launch.h"
#include "scan.cuh"

namespace vmp_cuda {

template <typename T, int kStates, int kGroups>
__global__ void __launch_bounds__(2 * kLanes, kCompiled.summarise_blocks) summarise_chunks_kernel(const Job job) {
  summarise_chunks<T, kStates, kGroups>(job);
}

template <typename T>
__global__ void __launch_bounds__(kLanes) carry_states_kernel(const Job job) {
  carry_states<T>(job);
}

template <typename T, int kStates, int kGroups>
__global__ void __launch_bounds__(2 * kLanes, kCompiled.replay_blocks) replay_chunks_kernel(const Job job) {
  replay_chunks<T, kStates, kGroups>(job);
}

int directions_of(const vmp_cuda_scan& scan) { return scan.A_b ? 2 : 1; }

// The kernels of one activation type T, with the states of a channel in kGroups threads of kStates each.
template <typename T, int kStates, int kGroups>
struct Kernels {
  static constexpr int kChannels = kLanes / kGroups;

  static int64_t shared(const vmp_cuda_scan& scan, int chunk) {
    return replay_floats<kStates, kGroups>(chunk, directions_of(scan)) * sizeof(float);
  }

  static int64_t channel_blocks(const vmp_cuda_scan& scan) { return (scan.channels + kChannels - 1) / kChannels; }

  static cudaError_t supported() {
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, replay_chunks_kernel<T, kStates, kGroups>);
  }

  static cudaError_t run(Job job, void* stream) {
    const vmp_cuda_scan& scan = job.scan;
    job.channel_blocks = channel_blocks(scan);
    const dim3 grid(scan.batch * job.chunks * job.channel_blocks), block(kLanes, directions_of(scan));
    if (job.chunks > 1) {
      const int64_t staged = staged_floats<kStates, kGroups>(job.chunk) * sizeof(float);
      cudaError_t error = launch(summarise_chunks_kernel<T, kStates, kGroups>, grid, block, staged, stream, job);
      if (error != cudaSuccess) return error;
      const dim3 carry(scan.batch * ((scan.channels + kLanes - 1) / kLanes), scan.states, directions_of(scan));
      error = launch(carry_states_kernel<T>, carry, dim3(kLanes), 0, stream, job);
      if (error != cudaSuccess) return error;
    }
    return launch(replay_chunks_kernel<T, kStates, kGroups>, grid, block, shared(scan, job.chunk), stream, job);
  }
};

// The functions of the Kernels that a scan uses.
struct Dispatch {
  int64_t (*shared)(const vmp_cuda_scan&, int chunk);
  int64_t (*channel_blocks)(const vmp_cuda_scan&);
  cudaError_t (*run)(Job, void* stream);
};

template <typename T, int kStates, int kGroups>
Dispatch dispatch_to() {
  using Chosen = Kernels<T, kStates, kGroups>;
  return {Chosen::shared, Chosen::channel_blocks, Chosen::run};
}

template <typename T>
Dispatch dispatch_states(int64_t states) {
  if (states <= 8) return dispatch_to<T, 8, 1>();
  if (states <= kStatesPerThread) return dispatch_to<T, kStatesPerThread, 1>();
  if (states <= 2 * kStatesPerThread) return dispatch_to<T, kStatesPerThread, 2>();
  return dispatch_to<T, kStatesPerThread, 4>();
}

Dispatch dispatch(const vmp_cuda_scan& scan) {
  if (scan.dtype == VMP_CUDA_FLOAT16) return dispatch_states<__half>(scan.states);
  if (scan.dtype == VMP_CUDA_BFLOAT16) return dispatch_states<__nv_bfloat16>(scan.states);
  return dispatch_states<float>(scan.states);
}

// Choose the number of steps of a chunk. Short chunks fill the GPU; longer ones, which need less memory, are chosen if
// there are enough blocks without them.
cudaError_t choose_chunk(const vmp_cuda_scan& scan, const Dispatch& kernels, int* chunk) {
  int device = 0, major = 0, minor = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const Tuning tuning = tuning_of(10 * major + minor);
  if (tuning.sm == 0) return cudaErrorNoKernelImageForDevice;
  *chunk = tuning.shortest_chunk;
  const int64_t enough = static_cast<int64_t>(processors) * tuning.blocks;
  for (int longer = 2 * *chunk; longer <= tuning.longest_chunk; longer *= 2) {
    const int64_t blocks = scan.batch * kernels.channel_blocks(scan) * ((scan.length + longer - 1) / longer);
    if (blocks < enough || kernels.shared(scan, longer) > kSharedBytes) break;
    *chunk = longer;
  }
  return cudaSuccess;
}

struct Plan {
  Dispatch kernels;
  int chunk;
  int64_t chunks, sums, bytes;  // sums: number of floats of Job::delta_sums; bytes: size of the workspace
};

int make_plan(const vmp_cuda_scan* scan, Plan* plan) {
  if (!scan || scan->batch < 1 || scan->length < 1 || scan->channels < 1 || scan->states < 1 ||
      scan->states > VMP_CUDA_MAX_STATES || !is_dtype(scan->dtype)) {
    return VMP_CUDA_ERROR_ARGUMENT;
  }
  plan->kernels = dispatch(*scan);
  const cudaError_t error = choose_chunk(*scan, plan->kernels, &plan->chunk);
  if (error != cudaSuccess) return status_of(error);
  plan->chunks = (scan->length + plan->chunk - 1) / plan->chunk;
  const int64_t columns = scan->channels * scan->batch;
  // The first comparisons keep the last one from overflowing.
  if (plan->chunks > kMostBlocks || columns / scan->batch != scan->channels || columns > kMostBlocks ||
      scan->batch * plan->kernels.channel_blocks(*scan) > kMostBlocks / plan->chunks) {
    return VMP_CUDA_ERROR_ARGUMENT;
  }
  plan->sums = plan->chunks > 1 ? directions_of(*scan) * plan->chunks * columns : 0;
  plan->bytes = plan->sums * (1 + scan->states) * static_cast<int64_t>(sizeof(float));
  return VMP_CUDA_OK;
}

}  // namespace vmp_cuda

int vmp_cuda_abi(void) { return VMP_CUDA_ABI; }

const char* vmp_cuda_error(int code) {
  const int runtime = code - VMP_CUDA_ERROR_RUNTIME;
  if (runtime >= 0) return cudaGetErrorString(static_cast<cudaError_t>(runtime));
  switch (code) {
    case VMP_CUDA_OK: return "no error";
    case VMP_CUDA_ERROR_ARGUMENT: return "a size is out of range or a needed pointer is null";
    case VMP_CUDA_ERROR_WORKSPACE: return "the workspace is too small";
    default: return "unknown error";
  }
}

int vmp_cuda_supported(void) {
  return vmp_cuda::status_of(vmp_cuda::Kernels<float, vmp_cuda::kStatesPerThread, 1>::supported());
}

int vmp_cuda_scan_workspace(const vmp_cuda_scan* scan, int64_t* bytes) {
  if (!bytes) return VMP_CUDA_ERROR_ARGUMENT;
  vmp_cuda::Plan plan;
  const int code = vmp_cuda::make_plan(scan, &plan);
  if (code == VMP_CUDA_OK) *bytes = plan.bytes;
  return code;
}

int vmp_cuda_selective_scan(const vmp_cuda_scan* scan, vmp_cuda_output y, void* workspace, int64_t workspace_bytes,
                            void* stream) {
  vmp_cuda::Plan plan;
  const int code = vmp_cuda::make_plan(scan, &plan);
  if (code != VMP_CUDA_OK) return code;
  if (!scan->x.data || !scan->dt.data || !scan->B.data || !scan->C.data || !scan->A || !y.data) {
    return VMP_CUDA_ERROR_ARGUMENT;
  }
  if (plan.bytes > 0 && (!workspace || workspace_bytes < plan.bytes)) return VMP_CUDA_ERROR_WORKSPACE;
  float* sums = static_cast<float*>(workspace);
  const vmp_cuda::Job job{*scan, y, plan.chunk, static_cast<int>(plan.chunks), 0, sums, sums + plan.sums};
  return vmp_cuda::status_of(plan.kernels.run(job, stream));
}
