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

#define VMP_PROGRAM_ABI 3 /* changes with any signature here or any operator's schema */

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

/* An input of a program: (sizes[0], .., sizes[dims - 1]) float32, contiguous. It is only read. */
typedef struct {
  const float* data;
  const int32_t* sizes;
  int32_t dims;
} vmp_program_input;

/* The memory for an output of a program: `count` float32. The output must have exactly that many elements. */
typedef struct {
  float* data;
  int64_t count;
} vmp_program_output;

/* Run a program. A program for clips has one input and one output; the step of a causal model takes its states behind
 * the frames, and gives them behind the logits. The program keeps nothing of a run, so that one program serves many
 * streams. No output may overlap an input. All arrays must stay valid during the call.
 * Return 0, or 1 with the reason in `error`; the outputs are undefined then. */
int vmp_program_run(vmp_program* program, const vmp_program_input* inputs, int32_t input_count,
                    const vmp_program_output* outputs, int32_t output_count, char* error, int64_t error_size);

#ifdef __cplusplus
}
#endif
#endif
