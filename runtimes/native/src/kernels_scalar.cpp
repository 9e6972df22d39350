#include "simd/portable.h"
//
#define VMP_KERNELS kScalar
#define VMP_ISA "scalar"
#include "kernels.inc"
