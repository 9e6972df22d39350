#define VMP_ISA "avx512"
#define VMP_KERNELS kAvx512
#include "simd/avx512.h"

#include "kernels.inc"
