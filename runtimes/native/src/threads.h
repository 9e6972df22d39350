// Runs a range of tasks on the caller's pool, or on the library's own.
#pragma once

#include "vmp_ops.h"

namespace vmp {

void run_parallel(const vmp_threads* threads, int64_t count, vmp_range_fn range, void* job);

}  // namespace vmp
