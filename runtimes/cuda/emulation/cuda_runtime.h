// Replaces CUDA's header of this name: CUDA source is compiled as C++, and its threads run one after the other.
//
// Each thread of a block is a fiber that runs until it waits at a barrier. A block runs to its end before the next one
// starts. vmp_emulate sets the order; if results depend on the order of threads or blocks, the source has a race.
// Shared memory that is sized at the launch starts as NaNs, so that reading it before it is written becomes visible.
#pragma once

#include <ucontext.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __shared__ thread_local  // static in a function, `extern` allowed, and shared by all fibers
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

struct alignas(16) float4 {
  float x, y, z, w;
};

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

typedef struct Stream* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorNoKernelImageForDevice = 209 };
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMultiProcessorCount
};
struct cudaFuncAttributes {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

constexpr size_t kSharedLimit = 48 << 10;
namespace vmp_cuda {
inline thread_local float4 shared_memory[kSharedLimit / sizeof(float4)];
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // those of the running thread

namespace emulation {

// The emulated device, set by vmp_emulate.
inline int sm = 87, processors = 16;
inline bool backwards = false;

struct Barrier {
  int threads = 0, waiting = 0, round = 0;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  dim3 index;
  bool done = false;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<float> exchanged;  // the values of __shfl_xor_sync
  std::vector<Barrier> warps;
  Barrier all;
  ucontext_t scheduler;
  std::function<void()> kernel;
};

inline Block* block;
inline int current;

inline void yield() { swapcontext(&block->threads[current].context, &block->scheduler); }

inline void pass(Barrier& barrier) {
  if (barrier.waiting == barrier.threads) {
    barrier.waiting = 0;
    ++barrier.round;
  }
}

inline void wait(Barrier& barrier) {
  const int round = barrier.round;
  ++barrier.waiting;
  pass(barrier);
  while (barrier.round == round) yield();
}

// As on a GPU, barriers do not wait for threads that have returned.
inline void leave(Barrier& barrier) {
  --barrier.threads;
  if (barrier.threads > 0) pass(barrier);
}

inline void enter() {
  block->kernel();
  leave(block->all);
  leave(block->warps[current / 32]);
  block->threads[current].done = true;
  yield();
}

inline void prepare(Block& b) {
  constexpr size_t kStack = 64 << 10;
  const int count = blockDim.x * blockDim.y * blockDim.z;
  b.threads.resize(count);
  b.exchanged.resize(count);
  b.warps.assign((count + 31) / 32, Barrier{});
  b.all = {count};
  for (int i = 0; i < count; ++i) {
    ++b.warps[i / 32].threads;
    Thread& thread = b.threads[i];
    thread.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
    thread.done = false;
    if (!thread.stack) thread.stack.reset(new char[kStack]);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    makecontext(&thread.context, enter, 0);
  }
  for (float4& v : vmp_cuda::shared_memory) {
    v.x = v.y = v.z = v.w = std::numeric_limits<float>::quiet_NaN();
  }
}

inline void run(Block& b) {
  prepare(b);
  const int count = b.threads.size();
  for (int left = count; left > 0;) {
    for (int i = 0; i < count; ++i) {
      current = backwards ? count - 1 - i : i;
      if (b.threads[current].done) continue;
      threadIdx = b.threads[current].index;
      swapcontext(&b.scheduler, &b.threads[current].context);
      left -= b.threads[current].done;
    }
  }
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::block->all); }

inline float __shfl_xor_sync(unsigned, float value, int mask) {
  emulation::Block& b = *emulation::block;
  emulation::Barrier& warp = b.warps[emulation::current / 32];
  b.exchanged[emulation::current] = value;
  emulation::wait(warp);
  const float result = b.exchanged[emulation::current ^ mask];
  emulation::wait(warp);
  return result;
}

namespace emulation {

// While an object of this type exists, subnormal numbers are zero, as with nvcc -ftz=true.
struct Subnormals {
#ifdef __SSE__
  unsigned before = _mm_getcsr();
  Subnormals() { _mm_setcsr(before | 0x8040); }
  ~Subnormals() { _mm_setcsr(before); }
#elif defined(__aarch64__)
  uint64_t before = __builtin_aarch64_get_fpcr64();
  Subnormals() { __builtin_aarch64_set_fpcr64(before | 1 << 24); }
  ~Subnormals() { __builtin_aarch64_set_fpcr64(before); }
#endif
};

inline cudaError_t launch(std::function<void()> kernel, dim3 grid, dim3 threads, size_t shared_bytes) {
  if (shared_bytes > kSharedLimit) return cudaErrorInvalidConfiguration;
  Block block;
  emulation::block = &block;
  blockDim = threads;
  gridDim = grid;
  block.kernel = std::move(kernel);
  const Subnormals as_zero;
  const int64_t count = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = backwards ? count - 1 - i : i;
    blockIdx = dim3(at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y);
    run(block);
  }
  return cudaSuccess;
}

template <typename... Parameters, size_t... kIndex>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<kIndex...>) {
  kernel(*static_cast<Parameters*>(arguments[kIndex])...);
}

}  // namespace emulation

template <typename Job>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Job), const Job& job) {
  return emulation::launch([=] { kernel(job); }, config->gridDim, config->blockDim, config->dynamicSmemBytes);
}

// `arguments` has the addresses of the parameters' values.
template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes = 0, cudaStream_t = nullptr) {
  const auto indices = std::index_sequence_for<Parameters...>{};
  return emulation::launch([=] { emulation::call(kernel, arguments, indices); }, grid, block, shared_bytes);
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor   ? emulation::sm / 10
           : attribute == cudaDevAttrComputeCapabilityMinor ? emulation::sm % 10
                                                            : emulation::processors;
  return cudaSuccess;
}

template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated CUDA error"; }

// Set the emulated device, and whether threads and blocks run from the last to the first.
extern "C" __attribute__((visibility("default"), used)) inline void vmp_emulate(int sm, int processors, int backwards) {
  emulation::sm = sm;
  emulation::processors = processors;
  emulation::backwards = backwards;
}
