#define VMP_ISA "avx2"
#define VMP_KERNELS kAvx2
#include "simd/avx2.h"

#include "kernels.inc"
