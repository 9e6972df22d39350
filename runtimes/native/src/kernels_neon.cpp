#define VMP_ISA "neon"
#define VMP_KERNELS kNeon
#include "simd/neon.h"

#include "kernels.inc"
