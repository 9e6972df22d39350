// Replaces CUDA's header of this name.
#pragma once

#ifdef __aarch64__
typedef __fp16 half_number;  // there, GCC 12 has _Float16 in C only
#else
typedef _Float16 half_number;
#endif

struct __half {
  half_number value;
};
inline float __half2float(__half v) { return v.value; }
inline __half __float2half(float v) { return {static_cast<half_number>(v)}; }
