/* The selective scan and the causal convolution on NVIDIA GPUs: a plain C interface that depends on CUDA alone.
 *
 * The structs are in host memory; every pointer in them is to device memory of the current device. Activations are
 * (batch, length, channels); the channels are contiguous, batches and rows may have any stride. A call queues its work
 * on the given stream. It allocates, synchronises and keeps nothing, so that it can be captured into a CUDA graph.
 * Functions return VMP_CUDA_OK, one of the codes below, or VMP_CUDA_ERROR_RUNTIME plus a cudaError_t.
 *
 * The recurrence, the convolution and their options are described in vmp_edge/ops/reference.py.
 */
#ifndef VMP_CUDA_H
#define VMP_CUDA_H

#ifdef __CUDACC_RTC__ /* NVRTC has no stdint.h */
typedef int int32_t;
typedef long long int64_t;
#else
#include <stdint.h>
#endif

#define VMP_CUDA_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#define VMP_CUDA_ABI 3 /* changes whenever a struct or a signature below does */
#define VMP_CUDA_MAX_STATES 64
#define VMP_CUDA_MAX_TAPS 16

enum {
  VMP_CUDA_OK = 0,
  VMP_CUDA_ERROR_ARGUMENT = 1,  /* a size is out of range or a needed pointer is null */
  VMP_CUDA_ERROR_WORKSPACE = 2, /* the workspace is smaller than vmp_cuda_scan_workspace says */
  VMP_CUDA_ERROR_RUNTIME = 1000 /* plus the cudaError_t */
};

enum { VMP_CUDA_FLOAT32 = 0, VMP_CUDA_FLOAT16 = 1, VMP_CUDA_BFLOAT16 = 2 };

/* An array (batch, length, columns): element (b, t, c) is data[b * batch_stride + t * row_stride + c], in elements. */
typedef struct {
  const void* data; /* null for an array that is absent, where that is allowed */
  int64_t batch_stride;
  int64_t row_stride;
} vmp_cuda_input;

typedef struct {
  void* data;
  int64_t batch_stride;
  int64_t row_stride;
} vmp_cuda_output;

typedef struct {
  int64_t batch, length, channels, states; /* each at least 1, states at most VMP_CUDA_MAX_STATES */
  vmp_cuda_input x;                        /* (batch, length, channels) */
  vmp_cuda_input dt;                       /* (batch, length, channels), before dt_bias is added and softplus applied */
  vmp_cuda_input B;                        /* (batch, length, states) */
  vmp_cuda_input C;                        /* (batch, length, states) */
  vmp_cuda_input z;                        /* (batch, length, channels), the gate before its SiLU; data may be null */
  const float* A;                          /* (channels, states), at most 0 */
  const float* A_b;     /* (channels, states), of the backward direction; null for one direction only */
  const float* D;       /* (channels) or null */
  const float* dt_bias; /* (channels) or null */
  int32_t dtype;        /* of x, dt, B, C, z and y; the states are always float32 */
  int32_t reverse;      /* with one direction: walk from the end of the sequence; ignored with A_b */
  int32_t first_input;  /* the state starts at the first scanned x instead of zero */
  int32_t mask;         /* leave a step's own contribution out; with A_b of the backward direction only */
  /* Of one direction, or with A_b of the forward direction; (batch, channels, states), contiguous: */
  const float* state; /* the state before the first scanned step, whatever first_input says; null to start afresh */
  float* last_state;  /* receives the state after the last scanned step; may be null, must not overlap `state` */
} vmp_cuda_scan;

typedef struct {
  int64_t batch, length, channels, taps; /* each at least 1, taps at most VMP_CUDA_MAX_TAPS */
  vmp_cuda_input x;                      /* (batch, length, channels) */
  const float* weight;                   /* (channels, taps); the last tap multiplies the current step */
  const float* bias;                     /* (channels) or null */
  int32_t dtype;                         /* of x and y; sums are always float32 */
  int32_t reverse;                       /* convolve with the steps after the current one instead of those before it */
  const float* state; /* (batch, taps - 1, channels), the inputs scanned before the first step, the oldest first; null
                         for zeros */
  float* last_state;  /* receives the last taps - 1 inputs; may be null, must not overlap `state` */
} vmp_cuda_conv;

#ifndef __CUDACC_RTC__ /* NVRTC compiles no host code */

VMP_CUDA_API int vmp_cuda_abi(void);               /* the VMP_CUDA_ABI that the library was compiled with */
VMP_CUDA_API const char* vmp_cuda_error(int code); /* the meaning of a code, in one line; a static string */

/* Return VMP_CUDA_OK if the library has code for the current device. */
VMP_CUDA_API int vmp_cuda_supported(void);

/* Compute how many bytes of workspace the scan needs on the current device. Of `scan`, only the sizes, dtype and
 * whether A_b is null are read. */
VMP_CUDA_API int vmp_cuda_scan_workspace(const vmp_cuda_scan* scan, int64_t* bytes);

/* Compute y (batch, length, channels); with A_b it is the sum of both directions. y must not overlap an input.
 * `workspace` is aligned to 16 bytes, needs no initial value, and is in use until the stream has finished the call.
 * `stream` is a cudaStream_t. */
VMP_CUDA_API int vmp_cuda_selective_scan(const vmp_cuda_scan* scan, vmp_cuda_output y, void* workspace,
                                         int64_t workspace_bytes, void* stream);

/* Compute y (batch, length, channels) = SiLU(convolution of each channel along the sequence + bias). y must not overlap
 * x. `stream` is a cudaStream_t. */
VMP_CUDA_API int vmp_cuda_causal_conv_silu(const vmp_cuda_conv* conv, vmp_cuda_output y, void* stream);

#endif /* __CUDACC_RTC__ */

#ifdef __cplusplus
}
#endif
#endif
