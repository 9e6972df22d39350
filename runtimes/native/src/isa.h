// Which of the compiled instruction sets runs.
#pragma once

#include "kernels.h"

namespace vmp {

const Kernels* active_kernels();  // null if VMP_OPS_ISA names one that cannot be used

}  // namespace vmp
