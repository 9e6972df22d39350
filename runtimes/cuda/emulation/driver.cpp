// A libcuda.so.1 that needs no GPU. It has the part of the driver's API that a bundle's runtime calls, and runs kernels
// on the CPU.
//
// $VMP_CUDA_KERNELS names a library with the kernels, compiled as C++ (kernels.h). Without it there is no device: TVM's
// CUDA runtime can be loaded, which a machine that only builds needs, but not used. The work of a stream runs at once
// and in order. Device memory starts as NaNs.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNoDevice = 100, kInvalidImage = 200, kNotFound = 500;
constexpr int kProcessors = 16, kMajor = 75, kMinor = 76, kWarpSize = 10, kThreadsPerBlock = 1;  // device attributes

using Work = std::function<int()>;
using Graph = std::vector<Work>;

struct Stream {
  std::unique_ptr<Graph> capturing;
};

struct Kernel {
  int (*launch)(const unsigned* grid, const unsigned* block, size_t shared, void** arguments);
  int count;
};

struct Module {
  void* kernels;
  std::vector<std::unique_ptr<Kernel>> functions;
};

int device;  // its address stands for contexts and events

int submit(Stream* stream, Work work) {
  if (!stream || !stream->capturing) return work();
  stream->capturing->push_back(std::move(work));
  return kSuccess;
}

int copy(void* to, const void* from, size_t bytes, Stream* stream) {
  return submit(stream, [=] {
    std::memcpy(to, from, bytes);
    return kSuccess;
  });
}

void* address(uint64_t p) { return reinterpret_cast<void*>(p); }

}  // namespace

EXPORT int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
EXPORT int cuInit(unsigned) { return std::getenv("VMP_CUDA_KERNELS") ? kSuccess : kNoDevice; }
EXPORT int cuDeviceGetCount(int* count) {
  *count = 1;
  return kSuccess;
}
EXPORT int cuDeviceGetName(char* name, int size, int) {
  std::strncpy(name, "emulated GPU", size);
  return kSuccess;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  const char* sm = std::getenv("VMP_CUDA_SM");
  const int capability = sm ? std::atoi(sm) : 87;
  *value = attribute == kMajor             ? capability / 10
           : attribute == kMinor           ? capability % 10
           : attribute == kWarpSize        ? 32
           : attribute == kThreadsPerBlock ? 1024
                                           : kProcessors;
  return kSuccess;
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  *context = &device;
  return kSuccess;
}
EXPORT int cuCtxSetCurrent(void*) { return kSuccess; }
EXPORT int cuGetErrorName(int, const char** text) {
  *text = "EMULATED";
  return kSuccess;
}
EXPORT int cuGetErrorString(int code, const char** text) {
  *text = code == kNoDevice ? "no GPU: this driver only compiles" : code == kNotFound ? "no such kernel" : "failed";
  return kSuccess;
}

EXPORT int cuModuleLoadData(Module** module, const void* image) {
  const char* path = std::getenv("VMP_CUDA_KERNELS");
  if (!path) return kNoDevice;
  // A GPU takes a cubin or a fat binary, never source text.
  if (std::memcmp(image, "\177ELF", 4) && std::memcmp(image, "\x50\xed\x55\xba", 4)) return kInvalidImage;
  void* kernels = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!kernels) return kInvalidImage;
  *module = new Module{kernels, {}};
  return kSuccess;
}
EXPORT int cuModuleUnload(Module* module) {
  delete module;  // the library stays loaded, because other modules use it, too
  return kSuccess;
}
EXPORT int cuModuleGetFunction(Kernel** kernel, Module* module, const char* name) {
  const auto find = [&](const char* prefix) { return dlsym(module->kernels, (std::string(prefix) + name).c_str()); };
  void *launch = find("vmp_launch_"), *count = find("vmp_count_");
  if (!launch || !count) return kNotFound;
  module->functions.push_back(std::make_unique<Kernel>());
  *kernel = module->functions.back().get();
  (*kernel)->launch = reinterpret_cast<decltype(Kernel::launch)>(launch);
  (*kernel)->count = *static_cast<const int*>(count);
  return kSuccess;
}
EXPORT int cuFuncSetAttribute(Kernel*, int, int) { return kSuccess; }

struct LaunchConfig {  // CUlaunchConfig
  unsigned grid[3], block[3], shared;
  Stream* stream;
  void* attributes;
  unsigned attribute_count;
};

EXPORT int cuLaunchKernelEx(const LaunchConfig* config, Kernel* kernel, void** parameters, void**) {
  // Like a driver, read the parameters now: pointers and numbers of at most 8 bytes.
  std::vector<uint64_t> values(kernel->count);
  for (int i = 0; i < kernel->count; ++i) std::memcpy(&values[i], parameters[i], sizeof values[i]);
  const LaunchConfig sizes = *config;
  return submit(config->stream, [=]() mutable {
    std::vector<void*> arguments;
    for (uint64_t& value : values) arguments.push_back(&value);
    return kernel->launch(sizes.grid, sizes.block, sizes.shared, arguments.data());
  });
}
EXPORT int cuTensorMapEncodeTiled() { return kInvalidValue; }

EXPORT int cuMemAlloc_v2(uint64_t* p, size_t bytes) {
  constexpr size_t kAlignment = 256;
  void* memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (!memory) return kOutOfMemory;
  std::memset(memory, 0xff, bytes);
  *p = reinterpret_cast<uint64_t>(memory);
  return kSuccess;
}
EXPORT int cuMemFree_v2(uint64_t p) {
  std::free(address(p));
  return kSuccess;
}
EXPORT int cuMemAllocHost_v2(void** p, size_t bytes) {
  uint64_t memory = 0;
  const int code = cuMemAlloc_v2(&memory, bytes);
  *p = address(memory);
  return code;
}
EXPORT int cuMemFreeHost(void* p) {
  std::free(p);
  return kSuccess;
}
EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
  *free = *total = size_t{8} << 30;
  return kSuccess;
}
EXPORT int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
  return copy(address(to), address(from), bytes, stream);
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
  return copy(address(to), from, bytes, stream);
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
  return copy(to, address(from), bytes, stream);
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
  return copy(address(to), address(from), bytes, stream);
}

EXPORT int cuStreamCreate(Stream** stream, unsigned) {
  *stream = new Stream;
  return kSuccess;
}
EXPORT int cuStreamDestroy_v2(Stream* stream) {
  delete stream;
  return kSuccess;
}
EXPORT int cuStreamSynchronize(Stream* stream) { return stream && stream->capturing ? kInvalidValue : kSuccess; }
EXPORT int cuStreamWaitEvent(Stream*, void*, unsigned) { return kSuccess; }
EXPORT int cuStreamBeginCapture_v2(Stream* stream, int) {
  if (!stream || stream->capturing) return kInvalidValue;
  stream->capturing = std::make_unique<Graph>();
  return kSuccess;
}
EXPORT int cuStreamEndCapture(Stream* stream, Graph** graph) {
  if (!stream || !stream->capturing) return kInvalidValue;
  *graph = stream->capturing.release();
  return kSuccess;
}
EXPORT int cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
  *executable = new Graph(*graph);
  return kSuccess;
}
EXPORT int cuGraphLaunch(Graph* executable, Stream* stream) {
  for (const Work& work : *executable) {
    if (const int code = submit(stream, work)) return code;
  }
  return kSuccess;
}
EXPORT int cuGraphDestroy(Graph* graph) {
  delete graph;
  return kSuccess;
}
EXPORT int cuGraphExecDestroy(Graph* executable) { return cuGraphDestroy(executable); }

EXPORT int cuEventCreate(void** event, unsigned) {
  *event = &device;
  return kSuccess;
}
EXPORT int cuEventDestroy_v2(void*) { return kSuccess; }
EXPORT int cuEventRecord(void*, Stream*) { return kSuccess; }
EXPORT int cuEventSynchronize(void*) { return kSuccess; }
EXPORT int cuEventElapsedTime(float* milliseconds, void*, void*) {
  *milliseconds = 0;
  return kSuccess;
}
