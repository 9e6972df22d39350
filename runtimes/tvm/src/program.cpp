// vmp_program.h for a TVM bundle's library. It needs only the headers of tvm-ffi and libtvm_ffi. The caller must have
// loaded TVM's runtime, and for GPUs its CUDA libraries, with their symbols visible (RTLD_GLOBAL).
#include "vmp_program.h"

#include <tvm/ffi/any.h>
#include <tvm/ffi/container/array.h>
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

// The memory for an input of a program: on the CPU, and on the program's device, which may be the same.
struct Input {
  void fill(const vmp_program_input& given, DLDeviceType device) {
    const std::vector<int64_t> sizes(given.sizes, given.sizes + given.dims);
    const ffi::ShapeView shape(sizes.data(), sizes.size());
    if (!on_cpu || !std::equal(shape.begin(), shape.end(), on_cpu->shape().begin(), on_cpu->shape().end())) {
      on_cpu = allocate(shape, kDLCPU);
      on_device = device == kDLCPU ? on_cpu : allocate(shape, device);
    }
    std::memcpy(on_cpu->data_ptr(), given.data, static_cast<size_t>(on_cpu->numel()) * sizeof(float));
    if (device != kDLCPU) copy(*on_cpu, *on_device);
  }

  std::optional<ffi::Tensor> on_cpu, on_device;
};

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

  void run(const std::vector<vmp_program_input>& given, const std::vector<vmp_program_output>& wanted) {
    use_threads();
    inputs.resize(given.size());
    std::vector<ffi::AnyView> arguments;
    for (size_t i = 0; i < given.size(); ++i) {
      inputs[i].fill(given[i], device);
      arguments.emplace_back(*inputs[i].on_device);
    }
    ffi::Any result;
    main.CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &result);
    if (wanted.size() == 1) return take(result.cast<ffi::Tensor>(), wanted[0]);
    const auto results = result.cast<ffi::Array<ffi::Tensor>>();
    if (results.size() != wanted.size()) throw std::runtime_error("it does not give the expected number of tensors");
    for (size_t i = 0; i < wanted.size(); ++i) take(results[static_cast<int64_t>(i)], wanted[i]);
  }

  // Copy a result into the caller's memory.
  void take(ffi::Tensor result, const vmp_program_output& output) const {
    if (device != kDLCPU) {
      const ffi::Tensor back = allocate(result.shape(), kDLCPU);
      copy(result, back);
      result = back;
    }
    if (result.numel() != output.count) throw std::runtime_error("its output is not the expected number of values");
    std::memcpy(output.data, result.data_ptr(), static_cast<size_t>(output.count) * sizeof(float));
  }

  const DLDeviceType device;
  const ffi::Module machine;
  const ffi::Function main;
  std::vector<Input> inputs;
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

VMP_EXPORT int vmp_program_run(vmp_program* program, const vmp_program_input* inputs, int32_t input_count,
                               const vmp_program_output* outputs, int32_t output_count, char* error,
                               int64_t error_size) {
  try {
    program->run({inputs, inputs + input_count}, {outputs, outputs + output_count});
    return 0;
  } catch (const std::exception& e) {
    say(error, error_size, e.what());
  }
  return 1;
}

}  // extern "C"
