/* One program (a bundle's model.pte or model.so) in plain C: what the Python engines and libvmp_edge call.
 *
 * Each engine has a shared library of its own with these functions: libvmp_executorch.so, libvmp_edge_tvm.so. They are
 * looked up in the library (dlsym), never linked with: two engines in one process do not meet.
 * One program is called from one thread at a time; different programs may run at once. Functions that take `error`
 * write one line, cut to `error_size` bytes, where they fail. Nothing throws or aborts.
 */
#ifndef VMP_PROGRAM_H
#define VMP_PROGRAM_H

#include <stdint.h>

#define VMP_PROGRAM_ABI 2 /* changes with any signature here or any operator's schema */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vmp_program vmp_program;

int vmp_program_abi(void);

/* CPU threads of all programs. Must be called before the first program is loaded: XNNPACK keeps the pool that it was
 * created with. Returns 0, or 1 when the number is not positive or the pool could not be made. */
int vmp_program_set_threads(int num_threads);

/* Loads a program. Null on failure. The caller destroys it.
 *   gpu: not 0 for the first CUDA GPU, whose libraries are loaded already; else the CPU */
vmp_program* vmp_program_create(const char* path, int gpu, char* error, int64_t error_size);
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
