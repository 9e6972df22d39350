#include "vmp_program.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/platform.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

// The wheel exports these symbols but has no header that declares them.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t num_threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

#define VMP_EXPORT __attribute__((visibility("default")))

using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;

struct vmp_program {
  explicit vmp_program(const char* path) : module(path, Module::LoadMode::Mmap) {}
  Module module;
};

namespace {

// Whether loading a program has logged an error in this thread. ExecuTorch goes on after some faults of a program, such as
// an operator with a number that there is not, and crashes when it runs the program.
thread_local bool faulty = false;

// Log errors alone. By default ExecuTorch also writes about its progress to standard error.
void log_errors(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t, const char* message,
                size_t length) {
  if (level != kError && level != kFatal) return;
  faulty = faulty || std::strstr(file, "method.cpp");
  std::string text(message, length);  // it may quote the program: nothing of it may control the terminal
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < 32 || c > 126; }, '?');
  std::fprintf(stderr, "executorch: %s\n", text.c_str());
}

// Throw instead of ending the process. ExecuTorch gives up where a program contradicts itself, such as a number in place
// of a tensor. The functions below turn the exception into an error.
void give_up() { throw std::runtime_error("the program is damaged: build the bundle again"); }

const bool ours = executorch::runtime::register_pal(
    executorch::runtime::PalImpl::create(nullptr, give_up, nullptr, nullptr, log_errors, nullptr, nullptr, __FILE__));

void say(char* error, int64_t size, const char* what, const char* detail) {
  if (error && size > 0) std::snprintf(error, static_cast<size_t>(size), "%s: %s", what, detail);
}

void say(char* error, int64_t size, const char* what, Error code) {
  say(error, size, what, executorch::runtime::to_string(code));
}

// Copy a result into the caller's memory; false if it is something else than is expected.
bool take(const EValue& result, const vmp_program_output& output) {
  if (!result.isTensor()) return false;
  const auto& tensor = result.toTensor();
  if (tensor.numel() != output.count || tensor.scalar_type() != executorch::aten::ScalarType::Float) return false;
  std::memcpy(output.data, tensor.const_data_ptr<float>(), static_cast<size_t>(output.count) * sizeof(float));
  return true;
}

}  // namespace

extern "C" {

VMP_EXPORT int vmp_program_abi(void) { return VMP_PROGRAM_ABI; }

VMP_EXPORT int vmp_program_set_threads(int num_threads) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (!pool || num_threads < 1) return 1;
  if (pool->get_thread_count() == static_cast<size_t>(num_threads)) return 0;
  return pool->_unsafe_reset_threadpool(static_cast<uint32_t>(num_threads)) ? 0 : 1;
}

VMP_EXPORT vmp_program* vmp_program_create(const char* path, int gpu, char* error, int64_t error_size) {
  if (gpu) return say(error, error_size, "cannot load the program", "ExecuTorch programs run on the CPU"), nullptr;
  try {
    auto program = std::make_unique<vmp_program>(path);
    // Check that the program's tables lie inside the file before anything reads them.
    Error code = program->module.load(executorch::runtime::Program::Verification::InternalConsistency);
    faulty = false;
    if (code == Error::Ok) code = program->module.load_forward();
    if (code == Error::Ok && faulty) code = Error::InvalidProgram;
    if (code == Error::Ok) return program.release();
    say(error, error_size, "cannot load the program", code);
  } catch (const std::exception& e) {
    say(error, error_size, "cannot load the program", e.what());
  }
  return nullptr;
}

VMP_EXPORT void vmp_program_destroy(vmp_program* program) { delete program; }

VMP_EXPORT int vmp_program_run(vmp_program* program, const vmp_program_input* inputs, int32_t input_count,
                               const vmp_program_output* outputs, int32_t output_count, char* error,
                               int64_t error_size) {
  try {
    std::vector<executorch::extension::TensorPtr> tensors;  // they own what the values refer to
    std::vector<EValue> values;
    for (const auto* in = inputs; in != inputs + input_count; ++in) {
      const std::vector<executorch::aten::SizesType> sizes(in->sizes, in->sizes + in->dims);
      tensors.push_back(executorch::extension::from_blob(const_cast<float*>(in->data), sizes));
      values.emplace_back(*tensors.back());
    }
    const auto results = program->module.forward(values);
    if (!results.ok()) {
      say(error, error_size, "the program failed", results.error());
      return 1;
    }
    if (results->size() != static_cast<size_t>(output_count)) {
      say(error, error_size, "the program failed", "it does not give the expected number of tensors");
      return 1;
    }
    for (int32_t i = 0; i < output_count; ++i) {
      if (take(results->at(static_cast<size_t>(i)), outputs[i])) continue;
      say(error, error_size, "the program failed", "its output is not the expected number of float32 values");
      return 1;
    }
    return 0;
  } catch (const std::exception& e) {
    say(error, error_size, "the program failed", e.what());
    return 1;
  }
}

}  // extern "C"
