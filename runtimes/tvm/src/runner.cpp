// The smallest program that runs a TVM bundle's library: tvm-ffi's headers, libtvm_ffi and libtvm_runtime, no more.
//   vmp_tvm_runner LIBTVM_RUNTIME MODEL INPUT OUTPUT SIZE...
// INPUT is float32 of one or more clips of the shape SIZE..., as the program takes them; OUTPUT gets their logits.
#include <dlfcn.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

constexpr int kPooledAllocator = 2;  // tvm::runtime::memory::AllocatorType::kPooled

ffi::Function load_main(const char* path) {
  const ffi::Module library = ffi::Module::LoadFromFile(path);
  const ffi::Module machine = library->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  return machine->GetFunction("main").value();
}

// By the runtime's own allocator: generated code loads whole vectors and counts on its alignment.
ffi::Tensor allocate(const std::vector<int64_t>& sizes) {
  const ffi::Function make = ffi::Function::GetGlobalRequired("runtime.TVMTensorAllocWithScope");
  return make(ffi::Shape(sizes), DLDataType{kDLFloat, 32, 1}, DLDevice{kDLCPU, 0}, nullptr).cast<ffi::Tensor>();
}

void run(int count, char** arguments) {
  if (!dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(dlerror());
  std::vector<int64_t> sizes;
  for (int i = 5; i < count; ++i) sizes.push_back(std::atoll(arguments[i]));
  const ffi::Function main_function = load_main(arguments[2]);
  const ffi::Tensor clip = allocate(sizes);
  const std::streamsize bytes = static_cast<std::streamsize>(clip.numel() * sizeof(float));
  std::ifstream input(arguments[3], std::ios::binary);
  std::ofstream output(arguments[4], std::ios::binary);
  if (!input || !output) throw std::runtime_error("cannot open the input or the output file");
  while (input.read(static_cast<char*>(clip.data_ptr()), bytes)) {
    const ffi::Tensor logits = main_function(clip).cast<ffi::Tensor>();
    output.write(static_cast<const char*>(logits.data_ptr()), static_cast<std::streamsize>(logits.numel() * 4));
  }
  if (input.gcount() != 0) throw std::runtime_error("the input file is not a whole number of clips");
  if (!output.flush()) throw std::runtime_error("cannot write the output file");
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 6) {
    std::fprintf(stderr, "usage: %s LIBTVM_RUNTIME MODEL INPUT OUTPUT SIZE...\n", arguments[0]);
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
