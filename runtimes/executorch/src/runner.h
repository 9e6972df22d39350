/* A plain C runner of one ExecuTorch program: what Python's engine calls through ctypes, without PyTorch.
 *
 * One program is called from one thread at a time; different programs may run at once. Functions that take `error`
 * write one line, cut to `error_size` bytes, where they fail. Nothing throws or aborts.
 */
#ifndef VMP_EXECUTORCH_RUNNER_H
#define VMP_EXECUTORCH_RUNNER_H

#include <stdint.h>

#define VMP_EXECUTORCH_ABI 1 /* changes with any signature here or any operator's schema */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vmp_program vmp_program;

int vmp_executorch_abi(void);

/* Threads of the process-wide pool. Must be called before the first program is loaded: XNNPACK keeps the pool that it
 * was created with. Returns 0, or 1 when the number is not positive or the pool could not be made. */
int vmp_executorch_set_threads(int num_threads);

/* Loads a .pte file and its method "forward". Null on failure. The caller destroys it. */
vmp_program* vmp_program_create(const char* path, char* error, int64_t error_size);
void vmp_program_destroy(vmp_program* program); /* null is allowed */

/* Runs one input to one output.
 *   input  (shape[0], .., shape[dims - 1]) float32, contiguous, only read; must not move while the call lasts
 *   output (output_count) float32; the program must give exactly as many
 * Returns 0, or 1 with the reason in `error`. */
int vmp_program_run(vmp_program* program, const float* input, const int32_t* shape, int32_t dims, float* output,
                    int64_t output_count, char* error, int64_t error_size);

#ifdef __cplusplus
}
#endif
#endif
