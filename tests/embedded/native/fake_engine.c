/* An engine without dependencies, for tests. It has three classes, by the brightness of a video. Its program is a text
 * with two numbers: the milliseconds that a run takes, and the number of the run that fails (0 for none). Outputs after
 * the three classes are features. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "vmp_program.h"

struct vmp_program {
  long milliseconds, failing, runs;
};

static void say(char* error, int64_t size, const char* what) {
  if (error && size > 0) snprintf(error, (size_t)size, "%s", what);
}

int vmp_program_abi(void) { return VMP_PROGRAM_ABI; }

int vmp_program_set_threads(int num_threads) { return num_threads < 1; }

vmp_program* vmp_program_create(const char* path, int gpu, char* error, int64_t error_size) {
  vmp_program loaded = {0, 0, 0};
  FILE* file = fopen(path, "r");
  const int read = file && !gpu ? fscanf(file, "%ld %ld", &loaded.milliseconds, &loaded.failing) : 0;
  if (file) fclose(file);
  if (read != 2) return say(error, error_size, "not a program"), NULL;
  vmp_program* program = malloc(sizeof *program);
  *program = loaded;
  return program;
}

void vmp_program_destroy(vmp_program* program) { free(program); }

int vmp_program_run(vmp_program* program, const vmp_program_input* inputs, int32_t input_count,
                    const vmp_program_output* outputs, int32_t output_count, char* error, int64_t error_size) {
  float* output = outputs[0].data;
  if (input_count != 1 || output_count != 1 || outputs[0].count < 3) return say(error, error_size, "three classes"), 1;
  if (program->failing && ++program->runs >= program->failing) return say(error, error_size, "it was told to fail"), 1;
  const struct timespec pause = {program->milliseconds / 1000, program->milliseconds % 1000 * 1000000};
  nanosleep(&pause, NULL);
  int64_t count = 1;
  for (int32_t i = 0; i < inputs[0].dims; ++i) count *= inputs[0].sizes[i];
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += inputs[0].data[i];
  const float mean = (float)(sum / (double)count);
  output[0] = -mean, output[1] = 1 - mean * mean, output[2] = mean;
  for (int64_t i = 3; i < outputs[0].count; ++i)
    output[i] = 1e9f; /* features: large, so that mistaking one for a class is noticed */
  return 0;
}
