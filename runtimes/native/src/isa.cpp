#include "isa.h"

#include <cstdlib>
#include <cstring>

#include <atomic>

namespace vmp {
namespace {

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

// Return the index-th of the instruction sets that this CPU supports, best first, or null past the end.
const Kernels* usable(int index) {
  const Kernels* kernels[4] = {};
  int count = 0;
#if defined(__x86_64__)
  if (has_avx512()) kernels[count++] = &kAvx512;
  if (has_avx2()) kernels[count++] = &kAvx2;
#elif defined(__aarch64__)
  kernels[count++] = &kNeon;
#endif
  kernels[count++] = &kScalar;
  return index >= 0 && index < count ? kernels[index] : nullptr;
}

const Kernels* by_name(const char* name) {
  for (int i = 0; const Kernels* kernels = usable(i); ++i) {
    if (std::strcmp(kernels->isa, name) == 0) return kernels;
  }
  return nullptr;
}

const Kernels* default_kernels() {
  const char* name = std::getenv("VMP_OPS_ISA");
  return name && *name ? by_name(name) : usable(0);
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

const Kernels* active_kernels() {
  const Kernels* kernels = active.load(std::memory_order_acquire);
  if (!kernels) active.store(kernels = default_kernels(), std::memory_order_release);
  return kernels;
}

}  // namespace vmp

extern "C" {

const char* vmp_ops_isa(void) {
  const vmp::Kernels* kernels = vmp::active_kernels();
  return kernels ? kernels->isa : nullptr;
}

int vmp_ops_set_isa(const char* name) {
  const vmp::Kernels* kernels = name ? vmp::by_name(name) : vmp::default_kernels();
  if (!kernels) return VMP_ERROR_ISA;
  vmp::active.store(kernels, std::memory_order_release);
  return VMP_OK;
}

const char* vmp_ops_isa_at(int index) {
  const vmp::Kernels* kernels = vmp::usable(index);
  return kernels ? kernels->isa : nullptr;
}

}  // extern "C"
