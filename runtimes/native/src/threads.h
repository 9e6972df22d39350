// Run tasks on the caller's thread pool or on the library's own.
#pragma once

#include "vmp_ops.h"

namespace vmp {

// Call `range` for all tasks 0 .. count - 1 and return when they are done. Null `threads` is one thread.
void run_parallel(const vmp_threads* threads, int64_t count, vmp_range_fn range, void* job);

}  // namespace vmp
