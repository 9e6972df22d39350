#define VMP_ISA "scalar"
#define VMP_KERNELS kScalar
#include "simd/portable.h"

#include "kernels.inc"
