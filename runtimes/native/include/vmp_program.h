/* A plain C interface to run one program, a bundle's model.pte or model.so. The Python engines and libvmp_edge call it.
 *
 * Each engine has a shared library with these functions: libvmp_executorch.so, libvmp_edge_tvm.so. Callers look the
 * functions up by dlsym and do not link with the library, so that two engines in one process do not collide.
 * Only one thread at a time may call functions of a program; different programs may run at the same time. If a
 * function with the parameter `error` fails, it writes one line there, cut to `error_size` bytes. Functions never throw
 * and never abort.
 */
#ifndef VMP_PROGRAM_H
#define VMP_PROGRAM_H

#include <stdint.h>

#define VMP_PROGRAM_ABI 2 /* changes with any signature here or any operator's schema */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vmp_program vmp_program;

int vmp_program_abi(void); /* the VMP_PROGRAM_ABI that the library was compiled with */

/* Set the number of CPU threads of all programs. Call it before the first program is loaded: XNNPACK keeps the pool
 * that it was created with. Return 0, or 1 if the number is not positive or the pool could not be made. */
int vmp_program_set_threads(int num_threads);

/* Load a program. Return null on failure. The caller destroys the program.
 *   gpu: 0 for the CPU, else the first CUDA GPU, whose libraries the caller has loaded */
vmp_program* vmp_program_create(const char* path, int gpu, char* error, int64_t error_size);
void vmp_program_destroy(vmp_program* program); /* null is allowed */

/* Run a program that has one input and one output.
 *   input  (shape[0], .., shape[dims - 1]) float32, contiguous; it is only read, and must stay valid during the call
 *   output (output_count) float32; the program's output must have exactly that many elements
 * Return 0, or 1 with the reason in `error`. */
int vmp_program_run(vmp_program* program, const float* input, const int32_t* shape, int32_t dims, float* output,
                    int64_t output_count, char* error, int64_t error_size);

#ifdef __cplusplus
}
#endif
#endif
