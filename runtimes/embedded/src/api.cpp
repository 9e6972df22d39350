// The C interface: checks arguments, and turns exceptions into a status and a message.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>

#include "error.h"
#include "recognizer.h"
#include "stream.h"

struct vmp_edge_recognizer {
  std::shared_ptr<vmp::Recognizer> recognizer;
};

struct vmp_edge_stream {
  vmp::Stream stream;
};

namespace {

using vmp::bad_argument;
using vmp::Error;

thread_local std::string last_error;

// Run `call`. If it throws, store the message for vmp_edge_last_error and return the status.
template <class Call>
vmp_edge_status guarded(Call call) noexcept {
  try {
    try {
      call();
      return VMP_EDGE_OK;
    } catch (const Error& error) {
      last_error = error.what();
      return error.status;
    } catch (const std::bad_alloc&) {
      last_error = "out of memory";
      return VMP_EDGE_ERROR_MEMORY;
    } catch (const std::exception& error) {
      last_error = error.what();
      return VMP_EDGE_ERROR_INTERNAL;
    } catch (...) {
      last_error = "an exception of an unknown type was thrown";
      return VMP_EDGE_ERROR_INTERNAL;
    }
  } catch (...) {  // there is no memory even for the message
    return VMP_EDGE_ERROR_MEMORY;
  }
}

// In debug builds, the handles of objects that exist. Any other handle is refused before it is read.
#ifdef NDEBUG
void note_created(const void*) {}
void note_destroyed(const void*, const char*) {}
void check_alive(const void*, const char*) {}
#else
std::mutex handles_mutex;
std::set<const void*>& handles() {
  static auto* const all = new std::set<const void*>;  // outlives every other static
  return *all;
}
void note_created(const void* handle) {
  const std::lock_guard<std::mutex> lock(handles_mutex);
  handles().insert(handle);
}
void check_alive(const void* handle, const char* what) {
  const std::lock_guard<std::mutex> lock(handles_mutex);
  if (!handles().count(handle)) throw bad_argument(std::string("the ") + what + " was destroyed, or never created");
}
void note_destroyed(const void* handle, const char* what) {
  check_alive(handle, what);
  const std::lock_guard<std::mutex> lock(handles_mutex);
  handles().erase(handle);
}
#endif

template <class Handle>
Handle& alive(Handle* handle, const char* what) {
  if (!handle) throw bad_argument(std::string("the ") + what + " is NULL");
  check_alive(handle, what);
  return *handle;
}

template <class Pointer>
void need(Pointer* pointer, const char* what) {
  if (!pointer) throw bad_argument(std::string(what) + " is NULL");
}

// Return a caller's struct as this version declares it. Fields that an older caller does not know have their defaults.
template <class Struct>
Struct known(const Struct* argument, Struct defaults, const char* what) {
  need(argument, what);
  uint32_t size;  // the first member of each struct
  std::memcpy(&size, argument, sizeof size);
  if (size < sizeof size) throw bad_argument(std::string(what) + " was not initialised by its macro");
  if (size > sizeof(Struct)) throw bad_argument(std::string(what) + " is of a newer version of vmp_edge.h");
  std::memcpy(static_cast<void*>(&defaults), argument, size);
  return defaults;
}

// Copy as much of a struct to the caller's as the caller knows.
template <class Struct>
void give(const Struct& from, Struct* to, const char* what) {
  const uint32_t size = known(to, from, what).struct_size;
  std::memcpy(static_cast<void*>(to), &from, size);
  to->struct_size = size;
}

}  // namespace

extern "C" {

int32_t vmp_edge_abi_version(void) { return VMP_EDGE_ABI_VERSION; }

const char* vmp_edge_version(void) { return VMP_EDGE_VERSION; }

const char* vmp_edge_status_name(vmp_edge_status status) {
  static const char* const names[] = {"ok", "argument", "bundle", "machine", "engine", "state", "memory", "internal"};
  return status >= VMP_EDGE_OK && status <= VMP_EDGE_ERROR_INTERNAL ? names[status] : "unknown";
}

const char* vmp_edge_last_error(void) { return last_error.c_str(); }

vmp_edge_status vmp_edge_recognizer_create(const vmp_edge_recognizer_config* config, vmp_edge_recognizer** recognizer) {
  return guarded([&] {
    const auto settings = known(config, vmp_edge_recognizer_config VMP_EDGE_RECOGNIZER_CONFIG, "the configuration");
    need(settings.bundle, "the configuration's bundle");
    need(recognizer, "the place for the recogniser");
    if (settings.threads < 0 || settings.threads > vmp::kMostThreads)
      throw bad_argument("threads is " + std::to_string(settings.threads) + "; it must be 0 to " +
                         std::to_string(vmp::kMostThreads));
    std::unique_ptr<vmp_edge_recognizer> created(new vmp_edge_recognizer{std::make_shared<vmp::Recognizer>(
        settings.bundle, settings.threads, settings.libraries ? settings.libraries : "")});
    note_created(created.get());
    *recognizer = created.release();
  });
}

void vmp_edge_recognizer_destroy(vmp_edge_recognizer* recognizer) {
  if (!recognizer) return;
  guarded([&] {
    note_destroyed(recognizer, "recogniser");
    delete recognizer;
  });
}

vmp_edge_status vmp_edge_recognizer_get_info(const vmp_edge_recognizer* recognizer, vmp_edge_info* info) {
  return guarded([&] {
    const vmp::Manifest& manifest = alive(recognizer, "recogniser").recognizer->manifest();
    const vmp_edge_info values = {sizeof(vmp_edge_info),
                                  manifest.frames,
                                  manifest.preprocessing.image_size,
                                  static_cast<int32_t>(manifest.labels.size()),
                                  manifest.frame_rate,
                                  manifest.name.c_str(),
                                  manifest.engine.c_str(),
                                  manifest.precision.c_str(),
                                  manifest.target.c_str()};
    give(values, info, "the info");
  });
}

const char* vmp_edge_recognizer_label(const vmp_edge_recognizer* recognizer, int32_t index) {
  const char* label = nullptr;
  guarded([&] {
    const auto& labels = alive(recognizer, "recogniser").recognizer->manifest().labels;
    if (index >= 0 && static_cast<size_t>(index) < labels.size()) label = labels[static_cast<size_t>(index)].c_str();
  });
  return label;
}

vmp_edge_status vmp_edge_recognizer_predict(vmp_edge_recognizer* recognizer, const vmp_edge_frame* frames,
                                            int32_t count, int32_t top, vmp_edge_result** result) {
  return guarded([&] {
    const double start = vmp::seconds();
    const auto& shared = alive(recognizer, "recogniser").recognizer;
    need(frames, "the array of frames");
    need(result, "the place for the result");
    if (count < 1) throw bad_argument("a clip needs at least one frame");
    if (top < 0) throw bad_argument("top is " + std::to_string(top) + "; it must be 0 or more");
    auto created = std::make_unique<vmp::Result>(shared, shared->predict(frames, count), -1, top);
    created->latency = vmp::seconds() - start;
    *result = created.release();
  });
}

void vmp_edge_result_destroy(vmp_edge_result* result) { delete static_cast<vmp::Result*>(result); }

vmp_edge_status vmp_edge_result_to_json(const vmp_edge_result* result, char** json) {
  return guarded([&] {
    need(result, "the result");
    need(json, "the place for the text");
    const std::string text = vmp::to_json(*result);
    char* copy = static_cast<char*>(std::malloc(text.size() + 1));
    if (!copy) throw std::bad_alloc();
    std::memcpy(copy, text.c_str(), text.size() + 1);
    *json = copy;
  });
}

void vmp_edge_string_destroy(char* string) { std::free(string); }

vmp_edge_status vmp_edge_stream_create(vmp_edge_recognizer* recognizer, const vmp_edge_stream_config* config,
                                       vmp_edge_stream** stream) {
  return guarded([&] {
    const auto settings = known(config, vmp_edge_stream_config VMP_EDGE_STREAM_CONFIG, "the configuration");
    need(stream, "the place for the stream");
    std::unique_ptr<vmp_edge_stream> created(
        new vmp_edge_stream{{alive(recognizer, "recogniser").recognizer, settings}});
    note_created(created.get());
    *stream = created.release();
  });
}

void vmp_edge_stream_destroy(vmp_edge_stream* stream) {
  if (!stream) return;
  guarded([&] {
    note_destroyed(stream, "stream");
    delete stream;
  });
}

vmp_edge_status vmp_edge_stream_push(vmp_edge_stream* stream, const vmp_edge_frame* frame) {
  return guarded([&] {
    need(frame, "the frame");
    alive(stream, "stream").stream.push(*frame);
  });
}

int32_t vmp_edge_stream_is_ready(const vmp_edge_stream* stream) {
  int32_t ready = 0;
  guarded([&] { ready = alive(stream, "stream").stream.is_ready(); });
  return ready;
}

vmp_edge_status vmp_edge_stream_get_result(vmp_edge_stream* stream, vmp_edge_result** result) {
  return guarded([&] {
    need(result, "the place for the result");
    *result = alive(stream, "stream").stream.get_result().release();
  });
}

vmp_edge_status vmp_edge_stream_start(vmp_edge_stream* stream, vmp_edge_callback callback, void* user) {
  return guarded([&] { alive(stream, "stream").stream.start(callback, user); });
}

vmp_edge_status vmp_edge_stream_stop(vmp_edge_stream* stream) {
  return guarded([&] { alive(stream, "stream").stream.stop(); });
}

vmp_edge_status vmp_edge_stream_reset(vmp_edge_stream* stream) {
  return guarded([&] { alive(stream, "stream").stream.reset(); });
}

vmp_edge_status vmp_edge_stream_get_statistics(const vmp_edge_stream* stream, vmp_edge_statistics* statistics) {
  return guarded([&] {
    vmp_edge_statistics values = VMP_EDGE_STATISTICS;
    alive(stream, "stream").stream.get_statistics(values);
    give(values, statistics, "the statistics");
  });
}

}  // extern "C"
