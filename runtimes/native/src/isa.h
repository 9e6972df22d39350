// Choose which of the compiled instruction sets is used.
#pragma once

#include "kernels.h"

namespace vmp {

// Return the kernels of the instruction set in use, or null if VMP_OPS_ISA names one that cannot be used.
const Kernels* active_kernels();

}  // namespace vmp
