#include "simd/neon.h"
//
#define VMP_KERNELS kNeon
#define VMP_ISA "neon"
#include "kernels.inc"
