/* libvmp_edge recognises actions in the frames of a camera. This is its interface for C11; vmp_edge.hpp wraps it for
 * C++.
 *
 *   vmp_edge_recognizer_config config = VMP_EDGE_RECOGNIZER_CONFIG;
 *   config.bundle = "bundles/host";
 *   vmp_edge_recognizer *recognizer;
 *   if (vmp_edge_recognizer_create(&config, &recognizer)) { fprintf(stderr, "%s\n", vmp_edge_last_error()); return 1; }
 *
 *   vmp_edge_stream_config settings = VMP_EDGE_STREAM_CONFIG;
 *   vmp_edge_stream *stream;
 *   vmp_edge_stream_create(recognizer, &settings, &stream);
 *
 *   while (camera_read(pixels)) {
 *     vmp_edge_frame frame = VMP_EDGE_FRAME;
 *     frame.format = VMP_EDGE_BGR, frame.width = 640, frame.height = 480;
 *     frame.data[0] = pixels, frame.stride[0] = 640 * 3, frame.timestamp = seconds_now();
 *     vmp_edge_stream_push(stream, &frame);
 *     if (!vmp_edge_stream_is_ready(stream)) continue;
 *     vmp_edge_result *result;
 *     if (vmp_edge_stream_get_result(stream, &result) == VMP_EDGE_OK && result) {
 *       printf("%s %.2f\n", result->top[0].name, result->score);
 *       vmp_edge_result_destroy(result);
 *     }
 *   }
 *   vmp_edge_stream_destroy(stream);
 *   vmp_edge_recognizer_destroy(recognizer);
 *
 * The example recognises in the camera's thread. `vmp_edge_stream_start` recognises in a thread of the stream's own
 * instead, and calls a function of the program with each result.
 *
 * Errors. A function that can fail returns a status. The status is 0 (VMP_EDGE_OK) on success; otherwise the function
 * has not written its outputs, and `vmp_edge_last_error` describes the failure in one line. The library never throws
 * an exception out of a function and never aborts the program.
 *
 * Ownership. The caller owns every object, result and string that a function gives out, and passes it to the matching
 * ..._destroy function, which accepts NULL. Strings and arrays inside a result live as long as the result. The library
 * keeps no pointer that it is passed: it reads frames and copies configurations before the function returns.
 *
 * Threads. Different objects may be used from different threads at the same time. Several streams and threads may share
 * one recogniser; its runs take turns, in the order in which they were asked for. Different threads may push frames to
 * one stream and get results from it at the same time. If a thread destroys an object while another one is inside a
 * call on it, that call still ends as usual; later calls fail (ARGUMENT).
 *
 * Versions. Each struct that a program fills in begins with its size, which the struct's initialiser sets. A newer
 * library thereby sees which fields a program does not know, and takes their defaults. The size must be one that the
 * struct has in some version of this header: any other size is refused (ARGUMENT), and so is that of a newer version.
 * If `vmp_edge_abi_version` differs from VMP_EDGE_ABI_VERSION, the program must be compiled again.
 *
 * Units. Times are in seconds, sizes of pictures in pixels, sizes of memory in bytes. Scores are from 0 to 1.
 */
#ifndef VMP_EDGE_H
#define VMP_EDGE_H

#include <stddef.h>
#include <stdint.h>

#define VMP_EDGE_ABI_VERSION 1

#if defined(VMP_EDGE_STATIC)
#define VMP_EDGE_API
#elif defined(VMP_EDGE_BUILDING)
#define VMP_EDGE_API __attribute__((visibility("default")))
#else
#define VMP_EDGE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vmp_edge_status {
  VMP_EDGE_OK = 0,
  VMP_EDGE_ERROR_ARGUMENT = 1, /* an argument is NULL, out of range, destroyed, or a struct of an unknown size */
  VMP_EDGE_ERROR_BUNDLE = 2,   /* the bundle is missing, damaged or of another format */
  VMP_EDGE_ERROR_MACHINE = 3,  /* the bundle is for another processor, or needs a GPU that this machine does not have */
  VMP_EDGE_ERROR_ENGINE = 4, /* a library of the engine is missing or of another version, or running the model failed */
  VMP_EDGE_ERROR_STATE = 5,  /* the call is not possible now, such as starting a stream twice */
  VMP_EDGE_ERROR_MEMORY = 6, /* out of memory */
  VMP_EDGE_ERROR_INTERNAL = 7 /* an error in the library itself */
} vmp_edge_status;

/* Return the VMP_EDGE_ABI_VERSION that the loaded library was compiled with. */
VMP_EDGE_API int32_t vmp_edge_abi_version(void);

/* Return the release, MAJOR.MINOR.PATCH. The string is static: do not free it. */
VMP_EDGE_API const char *vmp_edge_version(void);

/* Return the name of a status: "ok", "argument", ... It is never NULL. The string is static: do not free it. */
VMP_EDGE_API const char *vmp_edge_status_name(vmp_edge_status status);

/* Describe the last failure of a call in the calling thread, in one line of UTF-8; "" if no call has failed. The string
 * is valid until the next call of this thread that fails. */
VMP_EDGE_API const char *vmp_edge_last_error(void);

/* ---- Recogniser: a bundle that is loaded into its engine ---- */

typedef struct vmp_edge_recognizer vmp_edge_recognizer;

typedef struct vmp_edge_recognizer_config {
  uint32_t struct_size;
  const char *bundle;    /* the bundle's folder */
  int32_t threads;       /* number of CPU threads of the engine; 0 takes the manifest's number or, if it has none, all
                            cores. All ExecuTorch bundles of a process must have the same number. */
  const char *libraries; /* folders with the engines' libraries (libexecutorch*.so, libtvm_*.so, libvmp_edge_tvm.so),
                            separated by colons; NULL for none. The library searches them first, then
                            $VMP_EDGE_LIBRARIES, its own folder and the system's folders. */
} vmp_edge_recognizer_config;

#define VMP_EDGE_RECOGNIZER_CONFIG {sizeof(vmp_edge_recognizer_config), NULL, 0, NULL}

/* Check a bundle and load it into its engine. The format, the machine, and the size and SHA-256 of each file are
 * checked before anything in the bundle is executed. Each file is opened once, and what was checked is what is used.
 * Only files that the manifest lists are executed.
 * Errors: ARGUMENT, BUNDLE, MACHINE, ENGINE, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_recognizer_create(const vmp_edge_recognizer_config *config,
                                                        vmp_edge_recognizer **recognizer);

/* Destroy a recogniser. Its streams go on working; what they share with it is freed with the last of them. */
VMP_EDGE_API void vmp_edge_recognizer_destroy(vmp_edge_recognizer *recognizer);

typedef struct vmp_edge_info {
  uint32_t struct_size;
  int32_t frames;     /* number of frames of a clip or window of the model */
  int32_t image_size; /* side of the model's square input, in pixels; frames of any size may be pushed */
  int32_t classes;    /* number of classes */
  double frame_rate;  /* frames per second that a window takes as in training: the bundle's frame rate, or its frames by
                         its span in seconds; 0 if the bundle says nothing */
  const char *name, *engine, *precision, *target; /* valid as long as the recogniser or one of its streams lives */
} vmp_edge_info;

#define VMP_EDGE_INFO {sizeof(vmp_edge_info), 0, 0, 0, 0, NULL, NULL, NULL, NULL}

/* Describe the bundle.
 * Errors: ARGUMENT. */
VMP_EDGE_API vmp_edge_status vmp_edge_recognizer_get_info(const vmp_edge_recognizer *recognizer, vmp_edge_info *info);

/* Return the name of a class, or NULL if `index` is not in 0 .. classes - 1. The string is valid as long as the
 * recogniser or one of its streams lives. */
VMP_EDGE_API const char *vmp_edge_recognizer_label(const vmp_edge_recognizer *recognizer, int32_t index);

/* ---- Frames ---- */

typedef enum vmp_edge_format {
  VMP_EDGE_RGB = 0,  /* 3 bytes per pixel */
  VMP_EDGE_BGR = 1,  /* 3 bytes per pixel, in OpenCV's order */
  VMP_EDGE_GREY = 2, /* 1 byte per pixel */
  VMP_EDGE_NV12 = 3, /* data[0] is luma, 1 byte per pixel; data[1] alternates U and V, one pair for 2x2 pixels.
                        ITU-R BT.601, luma from 16 to 235. Width and height must be even. */
  VMP_EDGE_YUYV = 4  /* Y U Y V for two pixels, also called YUY2; ITU-R BT.601, luma from 16 to 235. The width must
                        be even. */
} vmp_edge_format;

typedef struct vmp_edge_frame {
  uint32_t struct_size;
  vmp_edge_format format;
  int32_t width, height;  /* in pixels */
  const uint8_t *data[2]; /* the first row of each plane; only NV12 has a second plane */
  int32_t stride[2];      /* bytes from one row to the next; 0 if there is no gap between rows */
  double timestamp;       /* in seconds, by any clock that does not run backwards, below 1e11. If it is negative, the
                             call reads the machine's monotonic clock. It must not be infinite or NaN. */
} vmp_edge_frame;

#define VMP_EDGE_FRAME {sizeof(vmp_edge_frame), VMP_EDGE_RGB, 0, 0, {NULL, NULL}, {0, 0}, -1.0}

/* ---- Results ---- */

typedef struct vmp_edge_score {
  int32_t label; /* index of the class */
  float score;
  const char *name; /* name of the class */
} vmp_edge_score;

typedef struct vmp_edge_result {
  uint32_t struct_size;
  int32_t label;             /* index of the recognised class; in a stream, of the class that smoothing shows */
  const char *name;          /* name of that class */
  float score;               /* score of that class */
  int32_t classes;           /* number of classes */
  const float *scores;       /* (classes): softmax of the logits; in a stream, smoothed */
  int32_t num_top;           /* number of entries of `top` */
  const vmp_edge_score *top; /* (num_top): the best classes, highest score first */
  double first_timestamp;    /* timestamp of the window's oldest frame; 0 from vmp_edge_recognizer_predict */
  double timestamp;          /* timestamp of the window's newest frame */
  double latency;            /* seconds from asking for the recogniser's turn (for a clip, from the call) to the result.
                                The window's frames are chosen when the turn has come. */
  int64_t frame;             /* number of the newest frame, counted from 0 */
  int64_t dropped;           /* number of frames so far that no window covered */
} vmp_edge_result;

/* Free a result. */
VMP_EDGE_API void vmp_edge_result_destroy(vmp_edge_result *result);

/* Write a result as a JSON object in one line of UTF-8, as `vmp-edge run --json` prints it:
 *   {"time": s, "frame": n, "label": "...", "score": x, "top": [["...", x], ...], "latency_ms": x, "dropped": n}
 * Free the string by vmp_edge_string_destroy.
 * Errors: ARGUMENT, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_result_to_json(const vmp_edge_result *result, char **json);

/* Free a string that the library gave out. */
VMP_EDGE_API void vmp_edge_string_destroy(char *string);

/* Recognise one clip, and return when the result is there.
 *   frames (count): frames of any sizes and formats. The model's number of frames is picked evenly from them; if there
 *     are too few, frames are picked more than once.
 *   top: number of best classes that the result lists
 * Errors: ARGUMENT, ENGINE, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_recognizer_predict(vmp_edge_recognizer *recognizer, const vmp_edge_frame *frames,
                                                         int32_t count, int32_t top, vmp_edge_result **result);

/* ---- Stream: frame ring, sliding window, smoothing ---- */

typedef struct vmp_edge_stream vmp_edge_stream;

typedef struct vmp_edge_stream_config {
  uint32_t struct_size;
  int32_t hop;              /* number of frames between one window and the next */
  int32_t stride;           /* a window takes every stride-th frame; 0 chooses frames by `fps` */
  double fps;               /* frames per second that a window takes, by their timestamps; 0 samples as the manifest
                               says, or takes every frame if it says nothing. Not together with `stride`. */
  double smoothing_windows; /* time constant of the scores' exponential average, in windows; 0 does not average */
  double smoothing_seconds; /* time constant in seconds, instead of `smoothing_windows`; negative for none */
  double smoothing_margin;  /* how much the averaged score of a new label must exceed that of the shown label */
  int32_t smoothing_hold;   /* number of windows in a row in which it must do so before it is shown. With a margin of 0
                               and a hold of 1 the best label is shown at once. */
  int32_t top;              /* number of best classes that results list */
} vmp_edge_stream_config;

#define VMP_EDGE_STREAM_CONFIG {sizeof(vmp_edge_stream_config), 4, 0, 0.0, 1.5, -1.0, 0.05, 2, 5}

/* Make a stream of a recogniser.
 * Errors: ARGUMENT, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_create(vmp_edge_recognizer *recognizer,
                                                    const vmp_edge_stream_config *config, vmp_edge_stream **stream);

/* Destroy a stream. If it has a thread of its own, the thread first finishes the window that it is recognising. In the
 * stream's own callback, the call returns at once: the stream counts as destroyed, its thread ends after the callback,
 * and there are no more callbacks. Callbacks of two streams must not destroy, stop or reset each other's stream: they
 * would wait for each other. */
VMP_EDGE_API void vmp_edge_stream_destroy(vmp_edge_stream *stream);

/* Resize and normalise a frame into the stream's ring. The call never waits for a window to be recognised: if
 * recognition is too slow, the stream drops its oldest frames and counts them.
 * Errors: ARGUMENT (also if the timestamp is older than the previous one), ENGINE (the stream's own thread failed; the
 * message is that of its failure). */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_push(vmp_edge_stream *stream, const vmp_edge_frame *frame);

/* Return 1 if vmp_edge_stream_get_result would give a result, else 0. Return 0 for NULL. */
VMP_EDGE_API int32_t vmp_edge_stream_is_ready(const vmp_edge_stream *stream);

/* Get the next result. If the stream was not started, this call recognises the newest window. If it was, this call
 * takes the newest result, once. If there is none, *result is NULL and the status is VMP_EDGE_OK.
 * Errors: ARGUMENT, ENGINE, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_get_result(vmp_edge_stream *stream, vmp_edge_result **result);

/* A function that the stream's own thread calls with each result. The result is valid until the function returns, and
 * `message` is NULL. If recognition failed, `result` is NULL, `message` says why, and there are no more calls. The
 * function must not throw. */
typedef void (*vmp_edge_callback)(const vmp_edge_result *result, const char *message, void *user);

/* Start a thread that recognises the newest window whenever one is due.
 *   callback: called with each result; NULL if the program calls vmp_edge_stream_get_result instead
 *   user: passed to the callback
 * Errors: ARGUMENT, STATE (the stream was started already), MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_start(vmp_edge_stream *stream, vmp_edge_callback callback, void *user);

/* Recognise the window that is due, if there is one, and end the stream's own thread.
 * Errors: ARGUMENT, STATE (the stream was not started, or this is its own callback), ENGINE (the thread failed; the
 * message is the thread's). */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_stop(vmp_edge_stream *stream);

/* Forget the frames and the smoothed scores, because the source starts again. Timestamps may also start again. The
 * statistics continue. After this call, no result of earlier frames is given. So the call waits while the stream's own
 * thread calls the callback (unless it is this callback): do not hold a lock that the callback needs.
 * Errors: ARGUMENT. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_reset(vmp_edge_stream *stream);

typedef struct vmp_edge_statistics {
  uint32_t struct_size;
  int64_t frames;           /* number of frames pushed */
  int64_t dropped;          /* number of those frames that no window covered */
  int64_t windows;          /* number of windows recognised */
  double frames_per_second; /* rate of the most recent frames; 0 before the second frame */
  double latency_p50;       /* the results' `latency`: median and 95th percentile of the most recent windows; 0 before
                               the first window */
  double latency_p95;
  double push_p50; /* seconds that vmp_edge_stream_push took: median and 95th percentile of the most recent calls */
  double push_p95;
} vmp_edge_statistics;

#define VMP_EDGE_STATISTICS {sizeof(vmp_edge_statistics), 0, 0, 0, 0, 0, 0, 0, 0}

/* Get the statistics of a stream.
 * Errors: ARGUMENT. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_get_statistics(const vmp_edge_stream *stream,
                                                            vmp_edge_statistics *statistics);

#ifdef __cplusplus
}
#endif
#endif
