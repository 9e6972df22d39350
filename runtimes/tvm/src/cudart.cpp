// libcudart.so.13 for devices that do not have it. It has the part of the CUDA runtime API that TVM's CUDA runtime
// calls, and calls the driver's API, which every CUDA driver has (libcuda.so.1; on Jetson it comes with JetPack). TVM's
// wheel depends on the runtime of CUDA 13, which JetPack 6 cannot have; the driver's API is the same in both.
//
// Names and numbers are those of NVIDIA's documentation of the two APIs, whose error and attribute codes agree.
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using Handle = void*;            // a stream, event, graph or context
using DevicePointer = uint64_t;  // CUdeviceptr

constexpr int kSuccess = 0, kInvalidValue = 1, kNoDriver = 35, kNotSupported = 801;
constexpr int kHostToDevice = 1, kDeviceToHost = 2, kDeviceToDevice = 3;  // cudaMemcpyKind
constexpr int kMaxDevices = 16;

thread_local int last_error = kSuccess, current_device = 0;
thread_local bool has_context = false;

int note(int code) {
  if (code != kSuccess) last_error = code;
  return code;
}

void* driver_symbol(const char* name) {
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  return driver ? dlsym(driver, name) : nullptr;
}

// A function of the driver, which is looked up by its name at the first call.
template <typename... Parameters>
struct Driver {
  const char* name;
  int (*function)(Parameters...) = nullptr;

  int operator()(Parameters... parameters) {
    if (!function) function = reinterpret_cast<int (*)(Parameters...)>(driver_symbol(name));
    return note(function ? function(parameters...) : kNoDriver);
  }
};

Driver<unsigned> init{"cuInit"};
Driver<int*> device_count{"cuDeviceGetCount"};
Driver<int*, int, int> device_attribute{"cuDeviceGetAttribute"};
Driver<Handle*, int> retain_context{"cuDevicePrimaryCtxRetain"};
Driver<Handle> set_context{"cuCtxSetCurrent"};
Driver<int, const char**> error_name{"cuGetErrorName"};
Driver<int, const char**> error_string{"cuGetErrorString"};
Driver<DevicePointer*, size_t> allocate{"cuMemAlloc_v2"};
Driver<DevicePointer> release{"cuMemFree_v2"};
Driver<void**, size_t> allocate_host{"cuMemAllocHost_v2"};
Driver<void*> release_host{"cuMemFreeHost"};
Driver<size_t*, size_t*> memory_info{"cuMemGetInfo_v2"};
Driver<DevicePointer, DevicePointer, size_t, Handle> copy{"cuMemcpyAsync"};
Driver<DevicePointer, const void*, size_t, Handle> copy_to_device{"cuMemcpyHtoDAsync_v2"};
Driver<void*, DevicePointer, size_t, Handle> copy_to_host{"cuMemcpyDtoHAsync_v2"};
Driver<DevicePointer, DevicePointer, size_t, Handle> copy_on_device{"cuMemcpyDtoDAsync_v2"};
Driver<Handle*, unsigned> create_stream{"cuStreamCreate"};
Driver<Handle> destroy_stream{"cuStreamDestroy_v2"};
Driver<Handle> synchronise_stream{"cuStreamSynchronize"};
Driver<Handle, Handle, unsigned> wait_for_event{"cuStreamWaitEvent"};
Driver<Handle, int> begin_capture{"cuStreamBeginCapture_v2"};
Driver<Handle, Handle*> end_capture{"cuStreamEndCapture"};
Driver<Handle*, Handle, unsigned long long> instantiate{"cuGraphInstantiateWithFlags"};
Driver<Handle, Handle> launch_graph{"cuGraphLaunch"};
Driver<Handle> destroy_graph{"cuGraphDestroy"};
Driver<Handle> destroy_executable{"cuGraphExecDestroy"};
Driver<Handle*, unsigned> create_event{"cuEventCreate"};
Driver<Handle> destroy_event{"cuEventDestroy_v2"};
Driver<Handle, Handle> record_event{"cuEventRecord"};
Driver<Handle> synchronise_event{"cuEventSynchronize"};
Driver<float*, Handle, Handle> elapsed{"cuEventElapsedTime"};

DevicePointer pointer(const void* p) { return reinterpret_cast<DevicePointer>(p); }

int use_device(int device) {
  static const int started = init(0);
  if (started != kSuccess) return note(started);
  static Handle contexts[kMaxDevices];  // the primary contexts; like CUDA's runtime, keep them to the end
  if (device < 0 || device >= kMaxDevices) return note(kInvalidValue);
  Handle context = __atomic_load_n(&contexts[device], __ATOMIC_ACQUIRE);
  if (!context) {
    if (const int code = retain_context(&context, device)) return code;
    __atomic_store_n(&contexts[device], context, __ATOMIC_RELEASE);
  }
  if (const int code = set_context(context)) return code;
  current_device = device;
  has_context = true;
  return kSuccess;
}

// Make sure that this thread has a context, which the driver's functions need.
int ready() { return has_context ? kSuccess : use_device(current_device); }

template <typename Function, typename... Arguments>
int with_context(Function& function, Arguments... arguments) {
  const int code = ready();
  return code ? code : function(arguments...);
}

const char* text(Driver<int, const char**>& look_up, int code) {
  if (code == kNoDriver) return "no NVIDIA driver was found (libcuda.so.1)";
  const int before = last_error;
  const char* result = nullptr;
  look_up(code, &result);
  last_error = before;  // a failed look-up is not an error of the caller
  return result ? result : "unknown CUDA error";
}

}  // namespace

EXPORT int cudaGetDeviceCount(int* count) {
  *count = 0;
  const int code = init(0);
  return code ? code : device_count(count);
}
EXPORT int cudaSetDevice(int device) { return use_device(device); }
EXPORT int cudaGetDevice(int* device) {
  *device = current_device;
  return kSuccess;
}
EXPORT int cudaDeviceGetAttribute(int* value, int attribute, int device) {
  return with_context(device_attribute, value, attribute, device);
}
// Not supported: the struct differs between versions. TVM reads only the memory's size from it, and not to run a model.
EXPORT int cudaGetDeviceProperties(void*, int) { return note(kNotSupported); }

EXPORT const char* cudaGetErrorName(int code) { return text(error_name, code); }
EXPORT const char* cudaGetErrorString(int code) { return text(error_string, code); }
EXPORT int cudaPeekAtLastError() { return last_error; }
EXPORT int cudaGetLastError() {
  const int code = last_error;
  last_error = kSuccess;
  return code;
}

EXPORT int cudaMalloc(void** p, size_t bytes) {
  DevicePointer memory = 0;
  const int code = with_context(allocate, &memory, bytes);
  *p = reinterpret_cast<void*>(memory);
  return code;
}
EXPORT int cudaFree(void* p) { return p ? with_context(release, pointer(p)) : kSuccess; }
EXPORT int cudaMallocHost(void** p, size_t bytes) { return with_context(allocate_host, p, bytes); }
EXPORT int cudaFreeHost(void* p) { return p ? with_context(release_host, p) : kSuccess; }
EXPORT int cudaMemGetInfo(size_t* free, size_t* total) { return with_context(memory_info, free, total); }

EXPORT int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, Handle stream) {
  switch (kind) {
    case kHostToDevice: return with_context(copy_to_device, pointer(to), from, bytes, stream);
    case kDeviceToHost: return with_context(copy_to_host, to, pointer(from), bytes, stream);
    case kDeviceToDevice: return with_context(copy_on_device, pointer(to), pointer(from), bytes, stream);
    default: return with_context(copy, pointer(to), pointer(from), bytes, stream);
  }
}
EXPORT int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, Handle stream) {
  return with_context(copy, pointer(to), pointer(from), bytes, stream);
}

EXPORT int cudaStreamCreate(Handle* stream) { return with_context(create_stream, stream, 0u); }
EXPORT int cudaStreamCreateWithFlags(Handle* stream, unsigned flags) {
  return with_context(create_stream, stream, flags);
}
EXPORT int cudaStreamDestroy(Handle stream) { return with_context(destroy_stream, stream); }
EXPORT int cudaStreamSynchronize(Handle stream) { return with_context(synchronise_stream, stream); }
EXPORT int cudaStreamWaitEvent(Handle stream, Handle event, unsigned flags) {
  return with_context(wait_for_event, stream, event, flags);
}

EXPORT int cudaStreamBeginCapture(Handle stream, int mode) { return with_context(begin_capture, stream, mode); }
EXPORT int cudaStreamEndCapture(Handle stream, Handle* graph) { return with_context(end_capture, stream, graph); }
EXPORT int cudaGraphInstantiate(Handle* executable, Handle graph, unsigned long long flags) {
  return with_context(instantiate, executable, graph, flags);
}
EXPORT int cudaGraphLaunch(Handle executable, Handle stream) { return with_context(launch_graph, executable, stream); }
EXPORT int cudaGraphDestroy(Handle graph) { return with_context(destroy_graph, graph); }
EXPORT int cudaGraphExecDestroy(Handle executable) { return with_context(destroy_executable, executable); }

EXPORT int cudaEventCreate(Handle* event) { return with_context(create_event, event, 0u); }
EXPORT int cudaEventDestroy(Handle event) { return with_context(destroy_event, event); }
EXPORT int cudaEventRecord(Handle event, Handle stream) { return with_context(record_event, event, stream); }
EXPORT int cudaEventSynchronize(Handle event) { return with_context(synchronise_event, event); }
EXPORT int cudaEventElapsedTime(float* milliseconds, Handle start, Handle end) {
  return with_context(elapsed, milliseconds, start, end);
}
