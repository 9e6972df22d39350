// The smallest program that runs a TVM bundle's library: tvm-ffi's headers, libtvm_ffi and TVM's runtime, no more.
//   vmp_tvm_runner DEVICE LIBRARIES MODEL INPUT OUTPUT SIZE...
// DEVICE is cpu or cuda. LIBRARIES, separated by colons, are loaded in order: libtvm_runtime.so; for CUDA
// libcudart.so.13 and libtvm_runtime_cuda.so, too. INPUT is float32 of one or more clips of the shape SIZE..., as the
// program takes them; OUTPUT gets their logits.
#include <dlfcn.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

constexpr int kPooledAllocator = 2;  // tvm::runtime::memory::AllocatorType::kPooled

ffi::Function load_main(const char* path, DLDeviceType device) {
  const ffi::Module library = ffi::Module::LoadFromFile(path);
  const ffi::Module machine = library->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  const ffi::Function initialise = machine->GetFunction("vm_initialization").value();
  const int cpu = kDLCPU;  // sizes and the like are the CPU's always
  if (device == kDLCPU) {
    initialise(cpu, 0, kPooledAllocator);
  } else {
    initialise(static_cast<int>(device), 0, kPooledAllocator, cpu, 0, kPooledAllocator);
  }
  return machine->GetFunction("main").value();
}

// By the runtime's own allocator: generated code loads whole vectors and counts on its alignment.
ffi::Tensor allocate(ffi::ShapeView sizes, DLDeviceType device) {
  const ffi::Function make = ffi::Function::GetGlobalRequired("runtime.TVMTensorAllocWithScope");
  return make(ffi::Shape(sizes), DLDataType{kDLFloat, 32, 1}, DLDevice{device, 0}, nullptr).cast<ffi::Tensor>();
}

void load_libraries(const std::string& paths) {
  std::istringstream list(paths);
  for (std::string path; std::getline(list, path, ':');) {
    if (!dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(dlerror());
  }
}

void run(int count, char** arguments) {
  const DLDeviceType device = std::string(arguments[1]) == "cuda" ? kDLCUDA : kDLCPU;
  load_libraries(arguments[2]);
  std::vector<int64_t> sizes;
  for (int i = 6; i < count; ++i) sizes.push_back(std::atoll(arguments[i]));
  const ffi::Function main_function = load_main(arguments[3], device);
  const ffi::Function copy = ffi::Function::GetGlobalRequired("runtime.TVMTensorCopyFromTo");
  const ffi::Tensor clip = allocate(ffi::Shape(sizes), kDLCPU);
  const ffi::Tensor input_there = device == kDLCPU ? clip : allocate(clip.shape(), device);
  const std::streamsize bytes = static_cast<std::streamsize>(clip.numel() * sizeof(float));
  std::ifstream input(arguments[4], std::ios::binary);
  std::ofstream output(arguments[5], std::ios::binary);
  if (!input || !output) throw std::runtime_error("cannot open the input or the output file");
  while (input.read(static_cast<char*>(clip.data_ptr()), bytes)) {
    if (device != kDLCPU) copy(clip, input_there);
    ffi::Tensor logits = main_function(input_there).cast<ffi::Tensor>();
    if (device != kDLCPU) {
      const ffi::Tensor here = allocate(logits.shape(), kDLCPU);
      copy(logits, here);  // waits for the GPU
      logits = here;
    }
    output.write(static_cast<const char*>(logits.data_ptr()), static_cast<std::streamsize>(logits.numel() * 4));
  }
  if (input.gcount() != 0) throw std::runtime_error("the input file is not a whole number of clips");
  if (!output.flush()) throw std::runtime_error("cannot write the output file");
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 7) {
    std::fprintf(stderr, "usage: %s cpu|cuda LIBRARIES MODEL INPUT OUTPUT SIZE...\n", arguments[0]);
    return 2;
  }
  try {
    run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vmp_tvm_runner: %s\n", error.what());
    return 1;
  }
  return 0;
}
