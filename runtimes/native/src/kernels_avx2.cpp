#include "simd/avx2.h"
//
#define VMP_KERNELS kAvx2
#define VMP_ISA "avx2"
#include "kernels.inc"
