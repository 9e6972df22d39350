// vmp_program.h for a TVM bundle's library. It needs only the headers of tvm-ffi and libtvm_ffi. The caller must have
// loaded TVM's runtime, and for GPUs its CUDA libraries, with their symbols visible (RTLD_GLOBAL).
#include "vmp_program.h"

#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#define VMP_EXPORT __attribute__((visibility("default")))

namespace ffi = tvm::ffi;

namespace {

constexpr int kPooledAllocator = 2;  // tvm::runtime::memory::AllocatorType::kPooled
constexpr int kAllCores = 0;         // TVM's affinity mode that prefers no kind of core

std::atomic<int> threads{0};  // 0: TVM's default

// Use the runtime's own allocator: generated code loads whole vectors and relies on its alignment.
ffi::Tensor allocate(ffi::ShapeView sizes, DLDeviceType device) {
  static const ffi::Function make = ffi::Function::GetGlobalRequired("runtime.TVMTensorAllocWithScope");
  return make(ffi::Shape(sizes), DLDataType{kDLFloat, 32, 1}, DLDevice{device, 0}, nullptr).cast<ffi::Tensor>();
}

// Load a shared library. The path may lack the ending .so, by which tvm-ffi would know what to do with it.
ffi::Module load(const char* path) {
  static const ffi::Function call = ffi::Function::GetGlobalRequired("ffi.Module.load_from_file.so");
  return call(path, "so").cast<ffi::Module>();
}

void copy(const ffi::Tensor& from, const ffi::Tensor& to) {  // waits for the GPU
  static const ffi::Function call = ffi::Function::GetGlobalRequired("runtime.TVMTensorCopyFromTo");
  call(from, to);
}

// Set the number of threads of the calling thread's pool. TVM has a pool for each thread that calls it.
void use_threads() {
  static const ffi::Function configure = ffi::Function::GetGlobalRequired("runtime.config_threadpool");
  thread_local int configured = 0;
  const int count = threads;
  if (count == configured) return;
  configure(kAllCores, count);
  configured = count;
}

void say(char* error, int64_t size, const char* what) {
  if (!error || size < 1) return;
  std::snprintf(error, static_cast<size_t>(size), "%s", what);
  for (char* p = error; *p; ++p)
    if (*p == '\n') *p = ' ';
}

}  // namespace

struct vmp_program {
  vmp_program(const char* path, DLDeviceType device)
      : device(device),
        machine(load(path)->GetFunction("vm_load_executable").value()().cast<ffi::Module>()),
        main(machine->GetFunction("main").value()) {
    const ffi::Function initialise = machine->GetFunction("vm_initialization").value();
    const int cpu = kDLCPU;  // shapes are always computed on the CPU
    if (device == kDLCPU) {
      initialise(cpu, 0, kPooledAllocator);
    } else {
      initialise(static_cast<int>(device), 0, kPooledAllocator, cpu, 0, kPooledAllocator);
    }
  }

  void run(const float* input, const std::vector<int64_t>& sizes, float* output, int64_t count) {
    use_threads();
    const ffi::ShapeView shape(sizes.data(), sizes.size());
    if (!cpu_input || !std::equal(shape.begin(), shape.end(), cpu_input->shape().begin(), cpu_input->shape().end())) {
      cpu_input = allocate(shape, kDLCPU);
      device_input = device == kDLCPU ? cpu_input : allocate(cpu_input->shape(), device);
    }
    std::memcpy(cpu_input->data_ptr(), input, static_cast<size_t>(cpu_input->numel()) * sizeof(float));
    if (device != kDLCPU) copy(*cpu_input, *device_input);
    ffi::Tensor logits = main(*device_input).cast<ffi::Tensor>();
    if (device != kDLCPU) {
      const ffi::Tensor back = allocate(logits.shape(), kDLCPU);
      copy(logits, back);
      logits = back;
    }
    if (logits.numel() != count) throw std::runtime_error("its output is not the expected number of values");
    std::memcpy(output, logits.data_ptr(), static_cast<size_t>(count) * sizeof(float));
  }

  const DLDeviceType device;
  const ffi::Module machine;
  const ffi::Function main;
  std::optional<ffi::Tensor> cpu_input, device_input;  // the input on the CPU, and on the program's device
};

extern "C" {

VMP_EXPORT int vmp_program_abi(void) { return VMP_PROGRAM_ABI; }

VMP_EXPORT int vmp_program_set_threads(int num_threads) {
  if (num_threads < 1) return 1;
  threads = num_threads;
  return 0;
}

VMP_EXPORT vmp_program* vmp_program_create(const char* path, int gpu, char* error, int64_t error_size) {
  try {
    return new vmp_program(path, gpu ? kDLCUDA : kDLCPU);
  } catch (const std::exception& e) {
    say(error, error_size, e.what());
  }
  return nullptr;
}

VMP_EXPORT void vmp_program_destroy(vmp_program* program) { delete program; }

VMP_EXPORT int vmp_program_run(vmp_program* program, const float* input, const int32_t* shape, int32_t dims,
                               float* output, int64_t output_count, char* error, int64_t error_size) {
  try {
    program->run(input, std::vector<int64_t>(shape, shape + dims), output, output_count);
    return 0;
  } catch (const std::exception& e) {
    say(error, error_size, e.what());
  }
  return 1;
}

}  // extern "C"
