// A minimal executable that runs a bundle's model.so or model.pte. It is linked with one engine's vmp_program.h.
//   RUNNER DEVICE LIBRARIES MODEL INPUT OUTPUT CLASSES SIZE...
// DEVICE is cpu or cuda. LIBRARIES are separated by colons and loaded in order: libtvm_runtime.so for TVM, then for
// CUDA libcudart.so.13 and libtvm_runtime_cuda.so; none for ExecuTorch. The file INPUT has one or more clips in
// float32, each of the shape SIZE... that the program takes. The file OUTPUT gets the logits, CLASSES numbers per clip.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "vmp_program.h"

namespace {

void load_libraries(const std::string& paths) {
  std::istringstream list(paths);
  for (std::string path; std::getline(list, path, ':');) {
    if (!dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(dlerror());
  }
}

void run(int count, char** arguments) {
  const bool gpu = std::string(arguments[1]) == "cuda";
  load_libraries(arguments[2]);
  std::vector<int32_t> sizes;
  std::streamsize numbers = 1;
  for (int i = 7; i < count; ++i) {
    sizes.push_back(std::atoi(arguments[i]));
    numbers *= sizes.back();
  }
  char error[512] = "";
  const std::unique_ptr<vmp_program, decltype(&vmp_program_destroy)> program(
      vmp_program_create(arguments[3], gpu, error, sizeof error), vmp_program_destroy);
  if (!program) throw std::runtime_error(error);
  std::vector<float> clip(static_cast<size_t>(numbers)), logits(static_cast<size_t>(std::atoi(arguments[6])));
  const std::streamsize bytes = numbers * static_cast<std::streamsize>(sizeof(float));
  std::ifstream input(arguments[4], std::ios::binary);
  std::ofstream output(arguments[5], std::ios::binary);
  if (!input || !output) throw std::runtime_error("cannot open the input or the output file");
  const vmp_program_input frames{clip.data(), sizes.data(), static_cast<int32_t>(sizes.size())};
  const vmp_program_output result{logits.data(), static_cast<int64_t>(logits.size())};
  while (input.read(reinterpret_cast<char*>(clip.data()), bytes)) {
    if (vmp_program_run(program.get(), &frames, 1, &result, 1, error, sizeof error)) throw std::runtime_error(error);
    output.write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(logits.size() * 4));
  }
  if (input.gcount() != 0) throw std::runtime_error("the input file is not a whole number of clips");
  if (!output.flush()) throw std::runtime_error("cannot write the output file");
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 8) {
    std::fprintf(stderr, "usage: %s cpu|cuda LIBRARIES MODEL INPUT OUTPUT CLASSES SIZE...\n", arguments[0]);
    return 2;
  }
  try {
    run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "runner: %s\n", error.what());
    return 1;
  }
  return 0;
}
