/* The selective scan and the causal convolution on NVIDIA GPUs: a plain C interface over CUDA, no other dependencies.
 *
 * Every pointer but the structs themselves is to device memory of the current device. Activations are (batch, length,
 * channels), channels last and contiguous; batches and rows may lie at any stride. Work is queued on the stream that
 * is given and nothing is allocated, synchronised or kept, so that calls can be captured into a CUDA graph. Functions
 * return VMP_CUDA_OK, one of the codes below, or VMP_CUDA_ERROR_RUNTIME plus a cudaError_t.
 *
 * The recurrence, the convolution and their options are described in vmp_edge/ops/reference.py.
 */
#ifndef VMP_CUDA_H
#define VMP_CUDA_H

#ifdef __CUDACC_RTC__ /* has no such header */
typedef int int32_t;
typedef long long int64_t;
#else
#include <stdint.h>
#endif

#define VMP_CUDA_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#define VMP_CUDA_ABI 2 /* changes whenever a struct or a signature below does */
#define VMP_CUDA_MAX_STATES 64
#define VMP_CUDA_MAX_TAPS 16

enum {
  VMP_CUDA_OK = 0,
  VMP_CUDA_ERROR_ARGUMENT = 1,  /* a size is out of range or a needed pointer is null */
  VMP_CUDA_ERROR_WORKSPACE = 2, /* the workspace is smaller than vmp_cuda_scan_workspace says */
  VMP_CUDA_ERROR_RUNTIME = 1000 /* plus the cudaError_t */
};

enum { VMP_CUDA_FLOAT32 = 0, VMP_CUDA_FLOAT16 = 1, VMP_CUDA_BFLOAT16 = 2 };

/* (batch, length, columns) array: element (b, t, c) is data[b * batch_stride + t * row_stride + c], in elements. */
typedef struct {
  const void* data; /* null: not given, where that is allowed */
  int64_t batch_stride;
  int64_t row_stride;
} vmp_cuda_input;

typedef struct {
  void* data;
  int64_t batch_stride;
  int64_t row_stride;
} vmp_cuda_output;

typedef struct {
  int64_t batch, length, channels, states; /* each at least 1; states at most VMP_CUDA_MAX_STATES */
  vmp_cuda_input x;                        /* (batch, length, channels) */
  vmp_cuda_input dt;                       /* (batch, length, channels), before dt_bias and softplus */
  vmp_cuda_input B;                        /* (batch, length, states) */
  vmp_cuda_input C;                        /* (batch, length, states) */
  vmp_cuda_input z;                        /* (batch, length, channels) gate before SiLU; data may be null */
  const float* A;                          /* (channels, states), not positive */
  const float* A_b;                        /* (channels, states), backward direction; null: one direction only */
  const float* D;                          /* (channels) or null */
  const float* dt_bias;                    /* (channels) or null */
  int32_t dtype;                           /* of x, dt, B, C, z and y; the states are float32 always */
  int32_t reverse;                         /* one direction: walk from the end; ignored with A_b */
  int32_t first_input;                     /* the state starts at the first scanned x, not at zero */
  int32_t mask;                            /* leave a step's own contribution out; with A_b: backwards only */
} vmp_cuda_scan;

typedef struct {
  int64_t batch, length, channels, taps; /* each at least 1; taps at most VMP_CUDA_MAX_TAPS */
  vmp_cuda_input x;                      /* (batch, length, channels) */
  const float* weight;                   /* (channels, taps), the last one for the step itself */
  const float* bias;                     /* (channels) or null */
  int32_t dtype;                         /* of x and y; sums are float32 always */
  int32_t reverse;                       /* a step sees those after it, not those before it */
} vmp_cuda_conv;

#ifndef __CUDACC_RTC__ /* which compiles no host code */

VMP_CUDA_API int vmp_cuda_abi(void);
VMP_CUDA_API const char* vmp_cuda_error(int code); /* one line, static */

/* VMP_CUDA_OK if the current device is one that the library has code for. */
VMP_CUDA_API int vmp_cuda_supported(void);

/* Bytes of workspace that the scan needs on the current device; only its sizes, dtype and A_b are looked at. */
VMP_CUDA_API int vmp_cuda_scan_workspace(const vmp_cuda_scan* scan, int64_t* bytes);

/* y (batch, length, channels), not overlapping any input; with A_b the sum of both directions. `workspace` is aligned
 * to 16 bytes, needs no initial value and is in use until the stream has passed the call; `stream` is a cudaStream_t.
 */
VMP_CUDA_API int vmp_cuda_selective_scan(const vmp_cuda_scan* scan, vmp_cuda_output y, void* workspace,
                                         int64_t workspace_bytes, void* stream);

/* y (batch, length, channels), not overlapping x: SiLU(the convolution of each channel along the sequence + bias). */
VMP_CUDA_API int vmp_cuda_causal_conv_silu(const vmp_cuda_conv* conv, vmp_cuda_output y, void* stream);

#endif /* __CUDACC_RTC__ */

#ifdef __cplusplus
}
#endif
#endif
