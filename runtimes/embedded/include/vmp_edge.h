/* libvmp_edge: recognise actions in a camera's frames, from C. C11, and C++ (see vmp_edge.hpp for a wrapper).
 *
 *   vmp_edge_recognizer_config config = VMP_EDGE_RECOGNIZER_CONFIG;
 *   config.bundle = "bundles/host";
 *   vmp_edge_recognizer *recognizer;
 *   if (vmp_edge_recognizer_create(&config, &recognizer)) { fprintf(stderr, "%s\n", vmp_edge_last_error()); return 1; }
 *
 *   vmp_edge_stream_config how = VMP_EDGE_STREAM_CONFIG;
 *   vmp_edge_stream *stream;
 *   vmp_edge_stream_create(recognizer, &how, &stream);
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
 * Instead of asking for results in the camera's thread, `vmp_edge_stream_start` has them made in a thread of the
 * stream's own, and calls back.
 *
 * Errors. Functions that can fail return a status, 0 for success, and leave their outputs alone otherwise;
 * `vmp_edge_last_error` has one line on the calling thread's last failure. No exception and no abort leaves the
 * library.
 *
 * Ownership. Whatever a ..._create or get gives is the caller's, to be given to the matching ..._destroy, which takes
 * NULL, too. Strings and arrays inside a result live as long as the result. Nothing that is passed in is kept: frames
 * are read, and configurations copied, before the function returns.
 *
 * Threads. Different objects may be used from different threads at once. One recogniser may be used by several streams
 * and threads: its runs take turns. One stream may be pushed to, asked, and read from different threads at once.
 * Destroying anything that another thread is inside of is the caller's mistake.
 *
 * Versions. A struct that a caller makes begins with its size, which its initialiser sets: a library that is newer
 * gives fields that a program does not know of their defaults. `vmp_edge_abi_version` differs from
 * VMP_EDGE_ABI_VERSION where a program must be compiled again.
 *
 * Units. Seconds, pixels, bytes; scores are 0 to 1.
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
  VMP_EDGE_ERROR_ARGUMENT = 1, /* NULL, out of range, a struct of a newer version, or something that was destroyed */
  VMP_EDGE_ERROR_BUNDLE = 2,   /* missing, damaged, of another format */
  VMP_EDGE_ERROR_MACHINE = 3,  /* the bundle is for another processor, or needs a GPU that is not here */
  VMP_EDGE_ERROR_ENGINE = 4,   /* a library of the engine is missing or does not fit, or running the model failed */
  VMP_EDGE_ERROR_STATE = 5,    /* the call does not fit what was called before */
  VMP_EDGE_ERROR_MEMORY = 6,
  VMP_EDGE_ERROR_INTERNAL = 7 /* a mistake of the library */
} vmp_edge_status;

/* VMP_EDGE_ABI_VERSION of the library that is loaded. */
VMP_EDGE_API int32_t vmp_edge_abi_version(void);

/* "0.1.0": the release; never to be freed. */
VMP_EDGE_API const char *vmp_edge_version(void);

/* "ok", "argument", ...: never NULL, never to be freed. */
VMP_EDGE_API const char *vmp_edge_status_name(vmp_edge_status status);

/* What went wrong in the calling thread's last call that failed, one line of UTF-8; "" before any. Valid until that
 * thread's next call that fails. */
VMP_EDGE_API const char *vmp_edge_last_error(void);

/* ---- Recogniser: a bundle in its engine ---- */

typedef struct vmp_edge_recognizer vmp_edge_recognizer;

typedef struct vmp_edge_recognizer_config {
  uint32_t struct_size;
  const char *bundle;    /* the bundle's folder */
  int32_t threads;       /* CPU threads of the engine; 0 takes the manifest's number, or all cores. One number for all
                            ExecuTorch bundles of a process. */
  const char *libraries; /* folders with the engines' libraries (libexecutorch*.so, libtvm_*.so, libvmp_edge_tvm.so),
                           separated by colons, searched before $VMP_EDGE_LIBRARIES, this library's own folder and the
                           system's; NULL for none */
} vmp_edge_recognizer_config;

#define VMP_EDGE_RECOGNIZER_CONFIG {sizeof(vmp_edge_recognizer_config), NULL, 0, NULL}

/* Checks a bundle (format, machine, each file's size and SHA-256, before anything in it is executed) and loads it into
 * its engine.
 * Errors: ARGUMENT, BUNDLE, MACHINE, ENGINE, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_recognizer_create(const vmp_edge_recognizer_config *config,
                                                        vmp_edge_recognizer **recognizer);

/* Streams of the recogniser go on working, and free what they share with it when they are destroyed. */
VMP_EDGE_API void vmp_edge_recognizer_destroy(vmp_edge_recognizer *recognizer);

typedef struct vmp_edge_info {
  uint32_t struct_size;
  int32_t frames;     /* of a clip that the model takes */
  int32_t image_size; /* pixels of a side that the model takes; frames of any size may be pushed */
  int32_t classes;
  double frame_rate; /* at which the model was trained, in frames per second; 0 where it does not matter */
  const char *name, *engine, *precision, *target; /* live as long as the recogniser and its streams */
} vmp_edge_info;

#define VMP_EDGE_INFO {sizeof(vmp_edge_info), 0, 0, 0, 0, NULL, NULL, NULL, NULL}

/* Errors: ARGUMENT. */
VMP_EDGE_API vmp_edge_status vmp_edge_recognizer_get_info(const vmp_edge_recognizer *recognizer, vmp_edge_info *info);

/* The name of a class, 0 to classes - 1, else NULL. Lives as long as the recogniser and its streams. */
VMP_EDGE_API const char *vmp_edge_recognizer_label(const vmp_edge_recognizer *recognizer, int32_t index);

/* ---- Frames ---- */

typedef enum vmp_edge_format {
  VMP_EDGE_RGB = 0,  /* 3 bytes a pixel */
  VMP_EDGE_BGR = 1,  /* 3 bytes a pixel, OpenCV's order */
  VMP_EDGE_GREY = 2, /* 1 byte a pixel */
  VMP_EDGE_NV12 = 3, /* data[0]: luma, 1 byte a pixel; data[1]: U and V in turn, a pair for 2x2 pixels. ITU-R BT.601,
                        16 to 235. Width and height are even. */
  VMP_EDGE_YUYV = 4  /* Y U Y V for two pixels, also called YUY2; the same range. Width is even. */
} vmp_edge_format;

typedef struct vmp_edge_frame {
  uint32_t struct_size;
  vmp_edge_format format;
  int32_t width, height;  /* pixels */
  const uint8_t *data[2]; /* the planes' first rows; data[1] is NV12's alone */
  int32_t stride[2];      /* bytes from a row to the next; 0 where rows follow each other without a gap */
  double timestamp;       /* seconds, on any clock that does not run backwards; negative takes the machine's monotonic
                             clock at the call */
} vmp_edge_frame;

#define VMP_EDGE_FRAME {sizeof(vmp_edge_frame), VMP_EDGE_RGB, 0, 0, {NULL, NULL}, {0, 0}, -1.0}

/* ---- Results ---- */

typedef struct vmp_edge_score {
  int32_t label;
  float score;
  const char *name;
} vmp_edge_score;

typedef struct vmp_edge_result {
  uint32_t struct_size;
  int32_t label;    /* the class that is shown: from a stream, the one that holds */
  const char *name; /* its name */
  float score;      /* its score */
  int32_t classes;
  const float *scores; /* (classes): softmax; from a stream, smoothed */
  int32_t num_top;
  const vmp_edge_score *top; /* (num_top): the best, highest first */
  double first_timestamp;    /* of the window's oldest frame; 0 from vmp_edge_recognizer_predict */
  double timestamp;          /* of its newest frame */
  double latency;            /* seconds from picking the window (for a clip: from the call) to its result */
  int64_t frame;             /* number of the newest frame, from 0 */
  int64_t dropped;           /* frames that no window reached over so far */
} vmp_edge_result;

VMP_EDGE_API void vmp_edge_result_destroy(vmp_edge_result *result);

/* The result as one JSON object in one line, UTF-8, as `vmp-edge run --json` prints it:
 *   {"time": s, "frame": n, "label": "...", "score": x, "top": [["...", x], ...], "latency_ms": x, "dropped": n}
 * For vmp_edge_string_destroy.
 * Errors: ARGUMENT, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_result_to_json(const vmp_edge_result *result, char **json);
VMP_EDGE_API void vmp_edge_string_destroy(char *string);

/* Recognises one clip and waits for it.
 *   frames (count): of any sizes and formats; the model's are picked evenly from them, one may be picked again
 *   top: how many of the best classes the result lists
 * Errors: ARGUMENT, ENGINE, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_recognizer_predict(vmp_edge_recognizer *recognizer, const vmp_edge_frame *frames,
                                                         int32_t count, int32_t top, vmp_edge_result **result);

/* ---- Stream: frame ring, sliding window, smoothing ---- */

typedef struct vmp_edge_stream vmp_edge_stream;

typedef struct vmp_edge_stream_config {
  uint32_t struct_size;
  int32_t hop;    /* frames between one window and the next */
  int32_t stride; /* a window takes every stride-th frame; 0 goes by `fps` */
  double fps;     /* so many frames per second by their timestamps; 0 takes the manifest's rate, or every frame where it
                     has none. Not with `stride`. */
  double smoothing_windows; /* time constant of the scores' exponential average, in windows; 0 does not average */
  double smoothing_seconds; /* the same in seconds, instead; negative for none */
  double smoothing_margin;  /* how much a new label's averaged score must exceed that of the label shown ... */
  int32_t smoothing_hold;   /* ... in how many windows in a row, before it is shown; with a margin of 0 and a hold of 1
                               the best is shown at once */
  int32_t top;              /* how many of the best classes results list */
} vmp_edge_stream_config;

#define VMP_EDGE_STREAM_CONFIG {sizeof(vmp_edge_stream_config), 4, 0, 0.0, 1.5, -1.0, 0.05, 2, 5}

/* Errors: ARGUMENT, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_create(vmp_edge_recognizer *recognizer,
                                                    const vmp_edge_stream_config *config, vmp_edge_stream **stream);

/* Ends the stream's own thread, if it has one, after the window that it is at. Not to be called from a callback. */
VMP_EDGE_API void vmp_edge_stream_destroy(vmp_edge_stream *stream);

/* Takes a frame in: resizes and normalises it straight into the ring. Never waits for a window to be recognised; where
 * recognising is too slow, the oldest frames are dropped and counted.
 * Errors: ARGUMENT (also: time runs backwards), ENGINE (the stream's own thread failed; what it failed with). */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_push(vmp_edge_stream *stream, const vmp_edge_frame *frame);

/* 1 if vmp_edge_stream_get_result has a result to give, else 0; 0 for NULL. */
VMP_EDGE_API int32_t vmp_edge_stream_is_ready(const vmp_edge_stream *stream);

/* The next result. Of a stream that was not started, the newest window is recognised now; of one that was, this is the
 * newest result that was not taken yet. *result is NULL, with VMP_EDGE_OK, where there is none.
 * Errors: ARGUMENT, ENGINE, MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_get_result(vmp_edge_stream *stream, vmp_edge_result **result);

/* Called in the stream's own thread with each result, which lives until the call returns. Where recognising failed,
 * `result` is NULL and `message` says why, and there are no more calls; else `message` is NULL. Must not throw. */
typedef void (*vmp_edge_callback)(const vmp_edge_result *result, const char *message, void *user);

/* Starts a thread that recognises the newest window whenever one is due.
 *   callback: NULL for none: ask for results
 *   user: passed to it
 * Errors: ARGUMENT, STATE (it was started already), MEMORY. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_start(vmp_edge_stream *stream, vmp_edge_callback callback, void *user);

/* Recognises the window that is due, if any, and ends the stream's own thread. Not to be called from a callback.
 * Errors: ARGUMENT, STATE (it was not started), ENGINE (that thread failed; what it failed with). */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_stop(vmp_edge_stream *stream);

/* Forgets the frames and the smoothed scores, for a source that starts again; timestamps may start again, too. The
 * statistics go on.
 * Errors: ARGUMENT. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_reset(vmp_edge_stream *stream);

typedef struct vmp_edge_statistics {
  uint32_t struct_size;
  int64_t frames;           /* that came in */
  int64_t dropped;          /* of them, that no window reached over */
  int64_t windows;          /* recognised */
  double frames_per_second; /* at which frames come in, over the last ones; 0 before the second */
  double latency_p50;       /* seconds from picking a window to its result, over the last ones; 0 before the first */
  double latency_p95;
  double push_p50; /* seconds that vmp_edge_stream_push took, over the last ones */
  double push_p95;
} vmp_edge_statistics;

#define VMP_EDGE_STATISTICS {sizeof(vmp_edge_statistics), 0, 0, 0, 0, 0, 0, 0, 0}

/* Errors: ARGUMENT. */
VMP_EDGE_API vmp_edge_status vmp_edge_stream_get_statistics(const vmp_edge_stream *stream,
                                                            vmp_edge_statistics *statistics);

#ifdef __cplusplus
}
#endif
#endif
