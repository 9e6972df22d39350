/* Recognises actions in raw video from standard input, and prints a JSON line for each result.
 *   ffmpeg -loglevel error -i clip.mp4 -f rawvideo -pix_fmt bgr24 - | recognize_pipe build/host bgr 640 480 30
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmp_edge.h"

static const char *const kFormats[] = {"rgb", "bgr", "grey", "nv12", "yuyv"};

static int fail(const char *what) {
  fprintf(stderr, "recognize_pipe: %s\n", what);
  return 1;
}

static int print_result(vmp_edge_stream *stream) {
  vmp_edge_result *result = NULL;
  if (vmp_edge_stream_get_result(stream, &result)) return fail(vmp_edge_last_error());
  if (!result) return 0;
  char *json = NULL;
  const int failed = vmp_edge_result_to_json(result, &json) != VMP_EDGE_OK;
  if (!failed) puts(json);
  vmp_edge_string_destroy(json);
  vmp_edge_result_destroy(result);
  return failed ? fail(vmp_edge_last_error()) : fflush(stdout) ? fail(strerror(errno)) : 0;
}

static int print_statistics(const vmp_edge_stream *stream) {
  vmp_edge_statistics statistics = VMP_EDGE_STATISTICS;
  if (vmp_edge_stream_get_statistics(stream, &statistics)) return fail(vmp_edge_last_error());
  fprintf(stderr, "%lld windows of %lld frames, %.3f ms a window, %.3f ms a frame (medians)\n",
          (long long)statistics.windows, (long long)statistics.frames, statistics.latency_p50 * 1e3,
          statistics.push_p50 * 1e3);
  return 0;
}

/* Recognise until the input ends. `pixels` has room for one frame of `size` bytes. */
static int recognize(vmp_edge_stream *stream, vmp_edge_frame *frame, uint8_t *pixels, size_t size, double rate) {
  for (long count = 0;; ++count) {
    const size_t bytes = fread(pixels, 1, size, stdin);
    if (bytes == 0) return print_statistics(stream);
    if (bytes < size) return fail("the last frame is not whole: check the format and the size");
    frame->timestamp = (double)count / rate;
    if (vmp_edge_stream_push(stream, frame)) return fail(vmp_edge_last_error());
    if (vmp_edge_stream_is_ready(stream) && print_result(stream)) return 1;
  }
}

int main(int count, char **arguments) {
  int format = 0;
  while (count == 6 && format < 5 && strcmp(arguments[2], kFormats[format])) ++format;
  const int width = count == 6 ? atoi(arguments[3]) : 0, height = count == 6 ? atoi(arguments[4]) : 0;
  const double rate = count == 6 ? atof(arguments[5]) : 0;
  if (format == 5 || width < 1 || height < 1 || !(rate > 0)) {
    fprintf(stderr, "usage: %s BUNDLE rgb|bgr|grey|nv12|yuyv WIDTH HEIGHT FRAMES_PER_SECOND < raw video\n",
            arguments[0]);
    return 2;
  }
  const size_t area = (size_t)width * (size_t)height;
  const size_t sizes[] = {3 * area, 3 * area, area, area + area / 2, 2 * area};
  uint8_t *pixels = malloc(sizes[format]);
  vmp_edge_frame frame = VMP_EDGE_FRAME;
  frame.format = (vmp_edge_format)format, frame.width = width, frame.height = height;
  frame.data[0] = pixels, frame.data[1] = format == VMP_EDGE_NV12 && pixels ? pixels + area : NULL;

  vmp_edge_recognizer_config config = VMP_EDGE_RECOGNIZER_CONFIG;
  vmp_edge_stream_config settings = VMP_EDGE_STREAM_CONFIG;
  vmp_edge_recognizer *recognizer = NULL;
  vmp_edge_stream *stream = NULL;
  config.bundle = arguments[1];
  int status;
  if (!pixels) status = fail("out of memory");
  else if (vmp_edge_recognizer_create(&config, &recognizer) || vmp_edge_stream_create(recognizer, &settings, &stream))
    status = fail(vmp_edge_last_error());
  else status = recognize(stream, &frame, pixels, sizes[format], rate);
  vmp_edge_stream_destroy(stream);
  vmp_edge_recognizer_destroy(recognizer);
  free(pixels);
  return status;
}
