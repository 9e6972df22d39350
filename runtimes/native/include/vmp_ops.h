/* The selective scan and the causal convolution on CPUs: a plain C interface without dependencies.
 *
 * Arrays are float32. Activations are (batch, length, channels); the channels are contiguous, batches and rows may have
 * any stride, so that a slice of a linear layer's output is read in place. The caller owns every array, and the library
 * keeps no pointer after a call returns. Outputs must not overlap inputs. Several threads may call functions at the
 * same time. Functions return VMP_OK or one of the codes below; they never abort and never throw.
 *
 * The recurrence and its options are described in vmp_edge/ops/reference.py.
 */
#ifndef VMP_OPS_H
#define VMP_OPS_H

#include <stdint.h>

#if defined(VMP_OPS_STATIC)
#define VMP_API /* compiled into another library, which decides what it exports */
#else
#define VMP_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define VMP_OPS_ABI 4 /* changes whenever a struct or a signature below does */

enum {
  VMP_OK = 0,
  VMP_ERROR_ARGUMENT = 1, /* a size is out of range or a needed pointer is null */
  VMP_ERROR_MEMORY = 2,   /* scratch memory could not be allocated */
  VMP_ERROR_ISA = 3       /* the requested instruction set is unknown, not built in, or not supported by this CPU */
};

#define VMP_MAX_TAPS 16 /* the longest convolution */

/* An array (batch, length, columns): element (b, t, c) is data[b * batch_stride + t * row_stride + c]. */
typedef struct {
  const float* data; /* null for an array that is absent, where that is allowed */
  int64_t batch_stride;
  int64_t row_stride;
} vmp_input;

typedef struct {
  float* data;
  int64_t batch_stride;
  int64_t row_stride;
} vmp_output;

/* How a call uses threads. `range(job, begin, end)` works on the tasks begin..end-1. `parallel_for` must run it over
 * all tasks 0..count-1, in any split and on any threads, and must return when all tasks are done. */
typedef void (*vmp_range_fn)(void* job, int64_t begin, int64_t end);
typedef void (*vmp_parallel_for_fn)(void* pool, int64_t count, vmp_range_fn range, void* job);
typedef struct {
  int32_t num_threads;              /* threads of the library's own pool, including the calling thread */
  vmp_parallel_for_fn parallel_for; /* null for the library's own pool */
  void* pool;                       /* passed to parallel_for */
} vmp_threads;

/* What vmp_parallel_for_openmp takes as its `pool`: the OpenMP runtime that the process has already, such as PyTorch's.
 * The runtime's threads spin for a while after each of its parallel regions, and a second pool would share the cores
 * with them. A forked child of a process that used the runtime must not use it: OpenMP runtimes do not survive a fork.
 */
typedef struct {
  void (*parallel)(void (*member)(void*), void* data, unsigned num_threads,
                   unsigned flags); /* the runtime's GOMP_parallel */
  uint32_t num_threads;
} vmp_openmp;

typedef struct {
  int64_t batch, length, channels, states; /* each at least 1 */
  vmp_input x;                             /* (batch, length, channels) */
  vmp_input dt;                            /* (batch, length, channels), before dt_bias is added and softplus applied */
  vmp_input B;                             /* (batch, length, states) */
  vmp_input C;                             /* (batch, length, states) */
  vmp_input z;                             /* (batch, length, channels), the gate before its SiLU; data may be null */
  const float* A;                          /* (channels, states), at most 0 */
  const float* A_b;     /* (channels, states), of the backward direction; null in vmp_selective_scan */
  const float* D;       /* (channels) or null */
  const float* dt_bias; /* (channels) or null */
  int32_t reverse;      /* vmp_selective_scan only: walk from the end of the sequence */
  int32_t first_input;  /* the state starts at the first scanned x instead of zero */
  int32_t mask; /* leave a step's own contribution out; in vmp_bi_selective_scan of the backward direction only */
  /* Of one direction, or of the forward direction in vmp_bi_selective_scan; (batch, channels, states), contiguous: */
  const float* state; /* the state before the first scanned step, whatever first_input says; null to start afresh */
  float* last_state;  /* receives the state after the last scanned step; may be null, must not overlap `state` */
} vmp_scan;

/* The gradients of the inputs. Each has the shape of its input, and is overwritten. */
typedef struct {
  vmp_output x, dt;             /* (batch, length, channels) */
  vmp_output z;                 /* data is null if the scan has no z */
  float *B, *C;                 /* (batch, length, states), contiguous */
  float *A, *A_b;               /* (channels, states); A_b is null for one direction */
  float *D, *dt_bias;           /* (channels); null if the scan has none */
  float* state;                 /* (batch, channels, states); null if the scan has none */
  const float* grad_last_state; /* an input: the gradient of last_state, (batch, channels, states); null for zero */
} vmp_scan_grads;

typedef struct {
  int64_t batch, length, channels, taps; /* taps from 1 to VMP_MAX_TAPS */
  vmp_input x;                           /* (batch, length, channels) */
  const float* weight;                   /* (channels, taps); the last tap multiplies the current step */
  const float* bias;                     /* (channels) or null */
  int32_t reverse;                       /* convolve with the steps after the current one instead of those before it */
  const float* state; /* (batch, taps - 1, channels), the inputs scanned before the first step, the oldest first; null
                         for zeros */
  float* last_state;  /* receives the last taps - 1 inputs; may be null, must not overlap `state` */
} vmp_conv;

typedef struct {
  vmp_output x;                 /* (batch, length, channels) */
  float* weight;                /* (channels, taps) */
  float* bias;                  /* (channels); null if the convolution has none */
  float* state;                 /* (batch, taps - 1, channels); null if the convolution has none */
  const float* grad_last_state; /* an input: the gradient of last_state, (batch, taps - 1, channels); null for zero */
} vmp_conv_grads;

VMP_API int vmp_ops_abi(void);               /* the VMP_OPS_ABI that the library was compiled with */
VMP_API const char* vmp_ops_error(int code); /* the meaning of a code, in one line; a static string */

/* Return the instruction set in use: "avx512", "avx2", "neon" or "scalar". The environment variable VMP_OPS_ISA chooses
 * it; null if it names one that cannot be used. Without the variable it is the best one that this CPU supports. */
VMP_API const char* vmp_ops_isa(void);
VMP_API int vmp_ops_set_isa(const char* name); /* for the whole process; null restores the default */
VMP_API const char* vmp_ops_isa_at(int index); /* the usable ones, best first; null past the end */

/* Compute y (batch, length, channels). If `threads` is null, one thread works. */
VMP_API int vmp_selective_scan(const vmp_scan* scan, vmp_output y, const vmp_threads* threads);
VMP_API int vmp_bi_selective_scan(const vmp_scan* scan, vmp_output y, const vmp_threads* threads);
VMP_API int vmp_causal_conv_silu(const vmp_conv* conv, vmp_output y, const vmp_threads* threads);

/* Compute the gradients from grad_y (batch, length, channels). Results do not depend on the number of threads. */
VMP_API int vmp_selective_scan_backward(const vmp_scan* scan, vmp_input grad_y, const vmp_scan_grads* grads,
                                        const vmp_threads* threads);
VMP_API int vmp_bi_selective_scan_backward(const vmp_scan* scan, vmp_input grad_y, const vmp_scan_grads* grads,
                                           const vmp_threads* threads);
VMP_API int vmp_causal_conv_silu_backward(const vmp_conv* conv, vmp_input grad_y, const vmp_conv_grads* grads,
                                          const vmp_threads* threads);

/* A parallel_for whose `pool` points to a vmp_openmp. */
VMP_API void vmp_parallel_for_openmp(void* pool, int64_t count, vmp_range_fn range, void* job);

/* The kernels' elementary functions, over n elements; the accuracy tests call them. */
VMP_API int vmp_exp(const float* in, float* out, int64_t n);
VMP_API int vmp_decay(const float* delta, float rate, float* out, int64_t n); /* exp(delta * rate), rate <= 0 */
VMP_API int vmp_softplus(const float* in, float* out, int64_t n);
VMP_API int vmp_silu(const float* in, float* out, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
