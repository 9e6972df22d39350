/* The GStreamer element vmprecognize recognises actions in the video that passes through it, and does not change the
 * video.
 *
 * It posts each result on the bus as an element message with the GstStructure `vmp-recognition`. It also attaches the
 * latest result to each buffer as a GstCustomMeta `VmpRecognitionMeta` with the same fields. This is not a
 * GstVideoRegionOfInterestMeta, because a recognition belongs to a span of time and not to a region of the picture.
 *
 *   label         string   the recognised label
 *   score         double   the smoothed score of the label, 0 to 1
 *   timestamp     guint64  running time of the window's newest frame, in nanoseconds
 *   window-start  guint64  running time of the window's oldest frame, in nanoseconds
 *   frame         guint64  number of the newest frame, counted from 0
 *   latency       guint64  nanoseconds that the recognition took
 *   dropped       guint64  number of frames so far that no window covered
 *   json          string   the result as `vmp-edge run --json` prints it, with the best classes
 *
 * By default a thread of the stream's own recognises windows, so that the video never waits. With wait=true the
 * streaming thread recognises them: every window is recognised, and a file gives the same results each time.
 */
#include <gst/base/gstbasetransform.h>
#include <gst/gst.h>
#include <gst/video/video.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "vmp_edge.h"

GST_DEBUG_CATEGORY_STATIC(vmp_recognize_debug);
#define GST_CAT_DEFAULT vmp_recognize_debug

#define MESSAGE_NAME "vmp-recognition"
#define META_NAME "VmpRecognitionMeta"

#define SIDE "(int) [ 1, 32768 ]"
#define EVEN "(int) [ 2, 32768, 2 ]" /* pairs of pixels share their chroma */
#define CAPS                                                                                                   \
  "video/x-raw, format = (string) { RGB, BGR, GRAY8 }, width = " SIDE ", height = " SIDE                       \
  ", framerate = (fraction) [ 0, max ]; video/x-raw, format = (string) YUY2, width = " EVEN ", height = " SIDE \
  ", framerate = (fraction) [ 0, max ]; video/x-raw, format = (string) NV12, width = " EVEN ", height = " EVEN \
  ", framerate = (fraction) [ 0, max ]"

static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS));
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS));

G_DECLARE_FINAL_TYPE(GstVmpRecognize, gst_vmp_recognize, GST, VMP_RECOGNIZE, GstBaseTransform)

struct _GstVmpRecognize {
  GstBaseTransform parent;

  gchar *bundle, *libraries;
  gint threads;
  vmp_edge_stream_config config;
  gboolean wait;

  vmp_edge_recognizer *recognizer; /* exists from start to stop, like the stream */
  vmp_edge_stream *stream;
  gboolean running; /* the stream's own thread is running */
  GstVideoInfo video;
  GstClockTime last_time; /* running time of the last pushed frame */

  /* The object lock guards these, because the stream's own thread uses them, too. */
  GstStructure *latest;
  guint64 pushed;      /* number of pushed frames */
  guint64 first_frame; /* results of frames before it are from before a flush */
};

G_DEFINE_TYPE(GstVmpRecognize, gst_vmp_recognize, GST_TYPE_BASE_TRANSFORM)

enum {
  PROP_0,
  PROP_BUNDLE,
  PROP_LIBRARIES,
  PROP_THREADS,
  PROP_HOP,
  PROP_FPS,
  PROP_SMOOTHING_WINDOWS,
  PROP_SMOOTHING_MARGIN,
  PROP_SMOOTHING_HOLD,
  PROP_TOP,
  PROP_WAIT
};

static void post_error(GstVmpRecognize *self, vmp_edge_status status, const char *message) {
  GQuark domain = GST_LIBRARY_ERROR;
  gint code = GST_LIBRARY_ERROR_INIT;
  if (status == VMP_EDGE_ERROR_BUNDLE) domain = GST_RESOURCE_ERROR, code = GST_RESOURCE_ERROR_NOT_FOUND;
  if (status == VMP_EDGE_ERROR_ARGUMENT) code = GST_LIBRARY_ERROR_SETTINGS;
  if (self->stream) domain = GST_STREAM_ERROR, code = GST_STREAM_ERROR_FAILED;
  gst_element_message_full(GST_ELEMENT(self), GST_MESSAGE_ERROR, domain, code, g_strdup(message),
                           g_strdup_printf("status of libvmp_edge: %s", vmp_edge_status_name(status)), __FILE__,
                           GST_FUNCTION, __LINE__);
}

/* Return whether the status is OK. If it is not, post the library's last error. */
static gboolean check(GstVmpRecognize *self, vmp_edge_status status) {
  if (status != VMP_EDGE_OK) post_error(self, status, vmp_edge_last_error());
  return status == VMP_EDGE_OK;
}

/* ---- Results ---- */

static guint64 nanoseconds(double seconds) { return (guint64)llround(seconds * 1e9); }

static GstStructure *describe(const vmp_edge_result *result) {
  char *json = NULL;
  vmp_edge_result_to_json(result, &json);
  GstStructure *structure =
      gst_structure_new(MESSAGE_NAME, "label", G_TYPE_STRING, result->name, "score", G_TYPE_DOUBLE,
                        (gdouble)result->score, "timestamp", G_TYPE_UINT64, nanoseconds(result->timestamp),
                        "window-start", G_TYPE_UINT64, nanoseconds(result->first_timestamp), "frame", G_TYPE_UINT64,
                        (guint64)result->frame, "latency", G_TYPE_UINT64, nanoseconds(result->latency), "dropped",
                        G_TYPE_UINT64, (guint64)result->dropped, "json", G_TYPE_STRING, json ? json : "", NULL);
  vmp_edge_string_destroy(json);
  return structure;
}

/* Post a result. It is called in the streaming thread or in the stream's own thread. */
static void take_result(GstVmpRecognize *self, const vmp_edge_result *result) {
  GstStructure *structure = describe(result);
  GST_OBJECT_LOCK(self);
  const gboolean current = (guint64)result->frame >= self->first_frame;
  if (current) {
    g_clear_pointer(&self->latest, gst_structure_free);
    self->latest = gst_structure_copy(structure);
  }
  GST_OBJECT_UNLOCK(self);
  if (current) gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), structure));
  else gst_structure_free(structure);
}

static void on_result(const vmp_edge_result *result, const char *message, void *user) {
  GstVmpRecognize *self = user;
  if (result) take_result(self, result);
  else post_error(self, VMP_EDGE_ERROR_ENGINE, message);
}

static gboolean copy_field(GQuark name, const GValue *value, gpointer meta) {
  gst_structure_id_set_value(meta, name, value);
  return TRUE;
}

static void attach_latest(GstVmpRecognize *self, GstBuffer *buffer) {
  GST_OBJECT_LOCK(self);
  if (self->latest) {
    GstCustomMeta *meta = gst_buffer_add_custom_meta(buffer, META_NAME);
    gst_structure_foreach(self->latest, copy_field, gst_custom_meta_get_structure(meta));
  }
  GST_OBJECT_UNLOCK(self);
}

/* ---- Frames ---- */

/* Forget frames and results, because another stream or another place in the stream follows. */
static void forget(GstVmpRecognize *self) {
  GST_OBJECT_LOCK(self);
  self->first_frame = self->pushed;
  g_clear_pointer(&self->latest, gst_structure_free);
  GST_OBJECT_UNLOCK(self);
  self->last_time = 0;
  if (self->stream) vmp_edge_stream_reset(self->stream);
}

/* Return the running time of a buffer, or the current one if the buffer has no timestamp. The result is invalid for
 * buffers outside of the segment. */
static GstClockTime running_time(GstVmpRecognize *self, GstBuffer *buffer) {
  const GstSegment *segment = &GST_BASE_TRANSFORM(self)->segment;
  if (segment->format == GST_FORMAT_TIME && GST_BUFFER_PTS_IS_VALID(buffer))
    return gst_segment_to_running_time(segment, GST_FORMAT_TIME, GST_BUFFER_PTS(buffer));
  const GstClockTime now = gst_element_get_current_running_time(GST_ELEMENT(self));
  return GST_CLOCK_TIME_IS_VALID(now) ? now : self->last_time;
}

static vmp_edge_format format_of(const GstVideoInfo *video) {
  switch (GST_VIDEO_INFO_FORMAT(video)) {
    case GST_VIDEO_FORMAT_BGR: return VMP_EDGE_BGR;
    case GST_VIDEO_FORMAT_GRAY8: return VMP_EDGE_GREY;
    case GST_VIDEO_FORMAT_NV12: return VMP_EDGE_NV12;
    case GST_VIDEO_FORMAT_YUY2: return VMP_EDGE_YUYV;
    default: return VMP_EDGE_RGB;
  }
}

static vmp_edge_status push(GstVmpRecognize *self, const GstVideoFrame *mapped, GstClockTime time) {
  vmp_edge_frame frame = VMP_EDGE_FRAME;
  frame.format = format_of(&self->video);
  frame.width = GST_VIDEO_FRAME_WIDTH(mapped), frame.height = GST_VIDEO_FRAME_HEIGHT(mapped);
  for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(mapped) && plane < 2; ++plane) {
    frame.data[plane] = GST_VIDEO_FRAME_PLANE_DATA(mapped, plane);
    frame.stride[plane] = GST_VIDEO_FRAME_PLANE_STRIDE(mapped, plane);
  }
  frame.timestamp = (double)time * 1e-9;
  return vmp_edge_stream_push(self->stream, &frame);
}

/* Start the stream's own thread, at the first frame and after EOS. */
static gboolean ensure_running(GstVmpRecognize *self) {
  if (self->wait || self->running) return TRUE;
  return self->running = check(self, vmp_edge_stream_start(self->stream, on_result, self));
}

static gboolean take_frame(GstVmpRecognize *self, GstBuffer *buffer, GstClockTime time) {
  GstVideoFrame mapped;
  if (!gst_video_frame_map(&mapped, &self->video, buffer, GST_MAP_READ)) {
    GST_ELEMENT_ERROR(self, STREAM, FORMAT, ("a buffer is smaller than its caps say"), (NULL));
    return FALSE;
  }
  if (time < self->last_time) forget(self);
  self->last_time = time;
  const vmp_edge_status status = push(self, &mapped, time);
  gst_video_frame_unmap(&mapped);
  if (status == VMP_EDGE_ERROR_ENGINE) return FALSE; /* the stream's own thread has posted this error */
  if (!check(self, status)) return FALSE;
  GST_OBJECT_LOCK(self);
  ++self->pushed;
  GST_OBJECT_UNLOCK(self);
  return TRUE;
}

static gboolean recognise_now(GstVmpRecognize *self) {
  while (vmp_edge_stream_is_ready(self->stream)) {
    vmp_edge_result *result = NULL;
    if (!check(self, vmp_edge_stream_get_result(self->stream, &result))) return FALSE;
    if (!result) return TRUE;
    take_result(self, result);
    vmp_edge_result_destroy(result);
  }
  return TRUE;
}

static GstFlowReturn transform_ip(GstBaseTransform *base, GstBuffer *buffer) {
  GstVmpRecognize *self = GST_VMP_RECOGNIZE(base);
  const GstClockTime time = running_time(self, buffer);
  if (GST_CLOCK_TIME_IS_VALID(time)) {
    if (!ensure_running(self) || !take_frame(self, buffer, time)) return GST_FLOW_ERROR;
    if (self->wait && !recognise_now(self)) return GST_FLOW_ERROR;
  }
  attach_latest(self, buffer);
  return GST_FLOW_OK;
}

/* ---- Element ---- */

static gboolean set_caps(GstBaseTransform *base, GstCaps *in, GstCaps *out) {
  (void)out;
  return gst_video_info_from_caps(&GST_VMP_RECOGNIZE(base)->video, in);
}

static gboolean sink_event(GstBaseTransform *base, GstEvent *event) {
  GstVmpRecognize *self = GST_VMP_RECOGNIZE(base);
  const GstEventType type = GST_EVENT_TYPE(event);
  if (type == GST_EVENT_FLUSH_STOP || type == GST_EVENT_STREAM_START) forget(self);
  if (type == GST_EVENT_EOS && self->running) { /* recognise the last window first; failures were posted */
    vmp_edge_stream_stop(self->stream);
    self->running = FALSE;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_vmp_recognize_parent_class)->sink_event(base, event);
}

static gboolean stop(GstBaseTransform *base) {
  GstVmpRecognize *self = GST_VMP_RECOGNIZE(base);
  vmp_edge_stream_destroy(self->stream);
  vmp_edge_recognizer_destroy(self->recognizer);
  self->stream = NULL, self->recognizer = NULL, self->running = FALSE;
  self->pushed = 0;
  forget(self);
  return TRUE;
}

static gboolean start(GstBaseTransform *base) {
  GstVmpRecognize *self = GST_VMP_RECOGNIZE(base);
  vmp_edge_recognizer_config config = VMP_EDGE_RECOGNIZER_CONFIG;
  config.bundle = self->bundle;
  config.libraries = self->libraries;
  config.threads = self->threads;
  if (!self->bundle) {
    GST_ELEMENT_ERROR(self, LIBRARY, SETTINGS, ("no bundle: set the property bundle to a bundle's folder"), (NULL));
    return FALSE;
  }
  vmp_edge_stream *stream = NULL;
  if (!check(self, vmp_edge_recognizer_create(&config, &self->recognizer)) ||
      !check(self, vmp_edge_stream_create(self->recognizer, &self->config, &stream))) {
    stop(base);
    return FALSE;
  }
  self->stream = stream;
  return TRUE;
}

static void finalize(GObject *object) {
  GstVmpRecognize *self = GST_VMP_RECOGNIZE(object);
  g_free(self->bundle);
  g_free(self->libraries);
  G_OBJECT_CLASS(gst_vmp_recognize_parent_class)->finalize(object);
}

/* The offset of each property's value in the element. */
#define FIELD(name) G_STRUCT_OFFSET(GstVmpRecognize, name)
static const glong fields[] = {[PROP_BUNDLE] = FIELD(bundle),
                               [PROP_LIBRARIES] = FIELD(libraries),
                               [PROP_THREADS] = FIELD(threads),
                               [PROP_HOP] = FIELD(config.hop),
                               [PROP_FPS] = FIELD(config.fps),
                               [PROP_SMOOTHING_WINDOWS] = FIELD(config.smoothing_windows),
                               [PROP_SMOOTHING_MARGIN] = FIELD(config.smoothing_margin),
                               [PROP_SMOOTHING_HOLD] = FIELD(config.smoothing_hold),
                               [PROP_TOP] = FIELD(config.top),
                               [PROP_WAIT] = FIELD(wait)};

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
  void *field = G_STRUCT_MEMBER_P(object, fields[id]);
  switch (G_PARAM_SPEC_VALUE_TYPE(spec)) {
    case G_TYPE_STRING:
      g_free(*(gchar **)field);
      *(gchar **)field = g_value_dup_string(value);
      break;
    case G_TYPE_INT: *(gint *)field = g_value_get_int(value); break;
    case G_TYPE_DOUBLE: *(gdouble *)field = g_value_get_double(value); break;
    default: *(gboolean *)field = g_value_get_boolean(value);
  }
}

static void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
  const void *field = G_STRUCT_MEMBER_P(object, fields[id]);
  switch (G_PARAM_SPEC_VALUE_TYPE(spec)) {
    case G_TYPE_STRING: g_value_set_string(value, *(gchar *const *)field); break;
    case G_TYPE_INT: g_value_set_int(value, *(const gint *)field); break;
    case G_TYPE_DOUBLE: g_value_set_double(value, *(const gdouble *)field); break;
    default: g_value_set_boolean(value, *(const gboolean *)field);
  }
}

static void gst_vmp_recognize_init(GstVmpRecognize *self) {
  self->config = (vmp_edge_stream_config)VMP_EDGE_STREAM_CONFIG;
  gst_base_transform_set_in_place(GST_BASE_TRANSFORM(self), TRUE); /* so that buffers can carry metadata */
}

static void install_properties(GObjectClass *class) {
  const vmp_edge_stream_config defaults = VMP_EDGE_STREAM_CONFIG;
  const GParamFlags flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY;
  GParamSpec *const specs[] = {
      [PROP_BUNDLE] = g_param_spec_string("bundle", "Bundle", "Folder of the bundle to recognise with", NULL, flags),
      [PROP_LIBRARIES] = g_param_spec_string(
          "libraries", "Libraries",
          "Folders with the engines' libraries, separated by colons, searched before $VMP_EDGE_LIBRARIES", NULL, flags),
      [PROP_THREADS] =
          g_param_spec_int("threads", "Threads", "CPU threads of the engine (0: the bundle's number, or all cores)", 0,
                           G_MAXINT, 0, flags),
      [PROP_HOP] =
          g_param_spec_int("hop", "Hop", "Frames between one window and the next", 1, G_MAXINT, defaults.hop, flags),
      [PROP_FPS] = g_param_spec_double(
          "fps", "Frames per second",
          "Frames per second that a window takes, by their timestamps (0: sampled as the bundle says, or every frame)",
          0, G_MAXDOUBLE, defaults.fps, flags),
      [PROP_SMOOTHING_WINDOWS] =
          g_param_spec_double("smoothing-windows", "Smoothing",
                              "Time constant of the scores' exponential average, in windows (0: no averaging)", 0,
                              G_MAXDOUBLE, defaults.smoothing_windows, flags),
      [PROP_SMOOTHING_MARGIN] =
          g_param_spec_double("smoothing-margin", "Margin",
                              "How much the score of a new label must exceed that of the shown label to replace it", 0,
                              1, defaults.smoothing_margin, flags),
      [PROP_SMOOTHING_HOLD] = g_param_spec_int(
          "smoothing-hold", "Hold", "Number of windows in a row in which a new label must lead before it is shown", 1,
          G_MAXINT, defaults.smoothing_hold, flags),
      [PROP_TOP] = g_param_spec_int("top", "Top", "Number of best classes in the JSON of a result", 0, G_MAXINT,
                                    defaults.top, flags),
      [PROP_WAIT] = g_param_spec_boolean(
          "wait", "Wait",
          "Recognise every window before its last frame goes on, instead of in a thread beside the video", FALSE,
          flags)};
  for (guint id = 1; id < G_N_ELEMENTS(specs); ++id) g_object_class_install_property(class, id, specs[id]);
}

static void gst_vmp_recognize_class_init(GstVmpRecognizeClass *class) {
  GObjectClass *object = G_OBJECT_CLASS(class);
  object->set_property = set_property;
  object->get_property = get_property;
  object->finalize = finalize;
  install_properties(object);

  GstElementClass *element = GST_ELEMENT_CLASS(class);
  gst_element_class_add_static_pad_template(element, &sink_template);
  gst_element_class_add_static_pad_template(element, &src_template);
  gst_element_class_set_static_metadata(element, "VMP Edge action recognition", "Filter/Analyzer/Video",
                                        "Recognises actions in the video that passes through it", "VMP Edge");

  GstBaseTransformClass *base = GST_BASE_TRANSFORM_CLASS(class);
  base->start = start;
  base->stop = stop;
  base->set_caps = set_caps;
  base->sink_event = sink_event;
  base->transform_ip = transform_ip;
}

static gboolean plugin_init(GstPlugin *plugin) {
  static const gchar *const tags[] = {NULL}; /* no tags: conversion and scaling keep the metadata */
  GST_DEBUG_CATEGORY_INIT(vmp_recognize_debug, "vmprecognize", 0, "action recognition");
  if (vmp_edge_abi_version() != VMP_EDGE_ABI_VERSION) {
    GST_ERROR("libvmp_edge is of another version than the plugin was compiled for");
    return FALSE;
  }
  gst_meta_register_custom(META_NAME, (const gchar **)tags, NULL, NULL, NULL);
  return gst_element_register(plugin, "vmprecognize", GST_RANK_NONE, gst_vmp_recognize_get_type());
}

#define PACKAGE "vmp_edge"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, vmpedge, "Action recognition with VMP Edge", plugin_init,
                  VERSION, "Apache 2.0", "VMP Edge", "Unknown package origin")
