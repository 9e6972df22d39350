#include "simd/avx512.h"
//
#define VMP_KERNELS kAvx512
#define VMP_ISA "avx512"
#include "kernels.inc"
