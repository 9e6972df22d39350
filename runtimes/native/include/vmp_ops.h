/* The selective scan and the causal convolution on CPUs: a plain C interface, no dependencies.
 *
 * Arrays are float32. Activations are (batch, length, channels), channels last and contiguous; batches and rows may
 * lie at any stride, so that a slice of a linear layer's output is read in place. Nothing is kept after a call
 * returns; the caller owns every array, and outputs must not overlap inputs. Functions may be called from several
 * threads at once. They return VMP_OK or one of the codes below; they never abort and never throw.
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

#define VMP_OPS_ABI 3 /* changes whenever a struct or a signature below does */

enum {
  VMP_OK = 0,
  VMP_ERROR_ARGUMENT = 1, /* a size is out of range or a needed pointer is null */
  VMP_ERROR_MEMORY = 2,   /* scratch memory could not be had */
  VMP_ERROR_ISA = 3       /* the instruction set asked for is unknown, not built in, or not this CPU's */
};

#define VMP_MAX_TAPS 16 /* longest convolution */

/* (batch, length, columns) array: element (b, t, c) is data[b * batch_stride + t * row_stride + c]. */
typedef struct {
  const float* data; /* null: not given, where that is allowed */
  int64_t batch_stride;
  int64_t row_stride;
} vmp_input;

typedef struct {
  float* data;
  int64_t batch_stride;
  int64_t row_stride;
} vmp_output;

/* How a call spreads over threads. `range(job, begin, end)` works on tasks begin..end-1; `parallel_for` must run it
 * over all of 0..count-1, in any split, on any threads, and return when all of it is done. */
typedef void (*vmp_range_fn)(void* job, int64_t begin, int64_t end);
typedef void (*vmp_parallel_for_fn)(void* pool, int64_t count, vmp_range_fn range, void* job);
typedef struct {
  int32_t num_threads;              /* threads of the library's own pool, the calling one included */
  vmp_parallel_for_fn parallel_for; /* null: the library's own pool */
  void* pool;                       /* handed to parallel_for */
} vmp_threads;

/* A parallel_for on an OpenMP runtime that the process has already, PyTorch's say, whose threads go on spinning for a
 * while after each of its own parallel regions: a second pool would have to share the cores with them. `pool` points to
 * a vmp_openmp. Not for a forked child of a process that used it: OpenMP runtimes do not survive that. */
typedef struct {
  void (*parallel)(void (*member)(void*), void* data, unsigned num_threads, unsigned flags); /* its GOMP_parallel */
  uint32_t num_threads;
} vmp_openmp;

typedef struct {
  int64_t batch, length, channels, states; /* each at least 1 */
  vmp_input x;                             /* (batch, length, channels) */
  vmp_input dt;                            /* (batch, length, channels), before dt_bias and softplus */
  vmp_input B;                             /* (batch, length, states) */
  vmp_input C;                             /* (batch, length, states) */
  vmp_input z;                             /* (batch, length, channels) gate before SiLU; data may be null */
  const float* A;                          /* (channels, states), not positive */
  const float* A_b;                        /* (channels, states), backward direction; null in vmp_selective_scan */
  const float* D;                          /* (channels) or null */
  const float* dt_bias;                    /* (channels) or null */
  int32_t reverse;                         /* vmp_selective_scan only: walk from the end */
  int32_t first_input;                     /* the state starts at the first scanned x, not at zero */
  int32_t mask;                            /* leave a step's own contribution out; bi: of the backward direction */
} vmp_scan;

/* Gradients, written over. Same shapes as the inputs that they belong to. */
typedef struct {
  vmp_output x, dt;   /* (batch, length, channels) */
  vmp_output z;       /* data null where the scan has no z */
  float *B, *C;       /* (batch, length, states), contiguous */
  float *A, *A_b;     /* (channels, states); A_b null for one direction */
  float *D, *dt_bias; /* (channels); null where the scan has none */
} vmp_scan_grads;

typedef struct {
  int64_t batch, length, channels, taps; /* taps 1..VMP_MAX_TAPS */
  vmp_input x;                           /* (batch, length, channels) */
  const float* weight;                   /* (channels, taps), the last one multiplies the current step */
  const float* bias;                     /* (channels) or null */
  int32_t reverse;                       /* look at the steps after the current one instead of those before */
} vmp_conv;

typedef struct {
  vmp_output x;  /* (batch, length, channels) */
  float* weight; /* (channels, taps) */
  float* bias;   /* (channels); null where the convolution has none */
} vmp_conv_grads;

VMP_API int vmp_ops_abi(void);
VMP_API const char* vmp_ops_error(int code); /* one line, static */

/* The instruction set in use: "avx512", "avx2", "neon" or "scalar"; null if VMP_OPS_ISA in the environment names one
 * that cannot be used. Without that variable it is the best one of this CPU. */
VMP_API const char* vmp_ops_isa(void);
VMP_API int vmp_ops_set_isa(const char* name); /* for the whole process; null goes back to the default */
VMP_API const char* vmp_ops_isa_at(int index); /* those usable here, best first; null past the end */

/* y (batch, length, channels). `threads` may be null: one thread. */
VMP_API int vmp_selective_scan(const vmp_scan* scan, vmp_output y, const vmp_threads* threads);
VMP_API int vmp_bi_selective_scan(const vmp_scan* scan, vmp_output y, const vmp_threads* threads);
VMP_API int vmp_causal_conv_silu(const vmp_conv* conv, vmp_output y, const vmp_threads* threads);

/* grad_y (batch, length, channels). Results do not depend on the number of threads. */
VMP_API int vmp_selective_scan_backward(const vmp_scan* scan, vmp_input grad_y, const vmp_scan_grads* grads,
                                        const vmp_threads* threads);
VMP_API int vmp_bi_selective_scan_backward(const vmp_scan* scan, vmp_input grad_y, const vmp_scan_grads* grads,
                                           const vmp_threads* threads);
VMP_API int vmp_causal_conv_silu_backward(const vmp_conv* conv, vmp_input grad_y, const vmp_conv_grads* grads,
                                          const vmp_threads* threads);

VMP_API void vmp_parallel_for_openmp(void* pool, int64_t count, vmp_range_fn range, void* job);

/* The elementary functions inside, over n elements: what the accuracy tests call. */
VMP_API int vmp_exp(const float* in, float* out, int64_t n);
VMP_API int vmp_decay(const float* delta, float rate, float* out, int64_t n); /* exp(delta * rate), rate <= 0 */
VMP_API int vmp_softplus(const float* in, float* out, int64_t n);
VMP_API int vmp_silu(const float* in, float* out, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
