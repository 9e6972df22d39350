/* gst_watch PIPELINE [seek | CAPS] runs a pipeline to its end and prints the results of its vmprecognize, in the order
 * of the bus:
 *
 *   buffer PTS LABEL TIMESTAMP    for each buffer at the element `sink`, from its metadata; LABEL is - without metadata
 *   message LABEL FRAME           for each message of the element
 *   end                           at EOS
 *
 * With `seek`, the pipeline goes back to its start at the first EOS. CAPS are the caps of the element `filter` after
 * six buffers. */
#include <gst/gst.h>
#include <string.h>

static GstElement *pipeline;
static const char *then;
static int buffers;

static void change_caps(void) {
  GstElement *filter = gst_bin_get_by_name(GST_BIN(pipeline), "filter");
  GstCaps *caps = gst_caps_from_string(then);
  g_object_set(filter, "caps", caps, NULL);
  gst_caps_unref(caps);
  gst_object_unref(filter);
}

static GstPadProbeReturn on_buffer(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  (void)pad, (void)user;
  GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER(info);
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, "VmpRecognitionMeta");
  guint64 timestamp = 0;
  const char *label = "-";
  if (meta) {
    GstStructure *fields = gst_custom_meta_get_structure(meta);
    label = gst_structure_get_string(fields, "label");
    gst_structure_get_uint64(fields, "timestamp", &timestamp);
  }
  /* Send the line over the bus, so that it is in order with the messages. */
  GstStructure *line = gst_structure_new("buffer", "pts", G_TYPE_UINT64, GST_BUFFER_PTS(buffer), "label", G_TYPE_STRING,
                                         label, "timestamp", G_TYPE_UINT64, timestamp, NULL);
  gst_element_post_message(pipeline, gst_message_new_element(GST_OBJECT(pipeline), line));
  if (++buffers == 6 && then && strcmp(then, "seek")) change_caps();
  return GST_PAD_PROBE_OK;
}

static void print(const GstStructure *fields) {
  guint64 pts = 0, timestamp = 0, frame = 0;
  const char *label = gst_structure_get_string(fields, "label");
  gst_structure_get_uint64(fields, "pts", &pts);
  gst_structure_get_uint64(fields, "timestamp", &timestamp);
  gst_structure_get_uint64(fields, "frame", &frame);
  if (gst_structure_has_name(fields, "buffer"))
    g_print("buffer %" G_GUINT64_FORMAT " %s %" G_GUINT64_FORMAT "\n", pts, label, timestamp);
  if (gst_structure_has_name(fields, "vmp-recognition")) g_print("message %s %" G_GUINT64_FORMAT "\n", label, frame);
}

/* Return 0 to go on, 1 at the end, 2 after an error. */
static int handle(GstMessage *message) {
  GError *error = NULL;
  switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_ELEMENT: print(gst_message_get_structure(message)); return 0;
    case GST_MESSAGE_ERROR:
      gst_message_parse_error(message, &error, NULL);
      g_printerr("%s\n", error->message);
      g_error_free(error);
      return 2;
    default:
      g_print("end\n");
      if (!then || strcmp(then, "seek")) return 1;
      then = NULL;
      gst_element_seek_simple(pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0);
      return 0;
  }
}

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  if (argc < 2 || !(pipeline = gst_parse_launch(argv[1], NULL))) return 2;
  then = argc > 2 ? argv[2] : NULL;
  GstElement *sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
  GstPad *pad = gst_element_get_static_pad(sink, "sink");
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, on_buffer, NULL, NULL);
  GstBus *bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  int done = 0;
  while (!done) {
    GstMessage *message =
        gst_bus_timed_pop_filtered(bus, GST_CLOCK_TIME_NONE, GST_MESSAGE_ELEMENT | GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
    done = handle(message);
    gst_message_unref(message);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(bus);
  gst_object_unref(pad);
  gst_object_unref(sink);
  gst_object_unref(pipeline);
  return done - 1;
}
