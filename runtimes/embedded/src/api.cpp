// The C interface: checks arguments, and turns exceptions into a status and a message.
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>

#include "error.h"
#include "recognizer.h"
#include "stream.h"

// Handles: their addresses stand for the objects.
struct vmp_edge_recognizer {};
struct vmp_edge_stream {};

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

// The objects of a kind that exist, by their handles. Any other handle is refused before it is read. A call holds its
// object, so that another thread may destroy the handle in the meantime.
template <class Object>
class Objects {
 public:
  explicit Objects(const char* what) : what_(what) {}

  template <class Handle>
  Handle* add(std::shared_ptr<Object> object) {
    auto handle = std::make_unique<Handle>();
    const std::lock_guard<std::mutex> lock(mutex_);
    objects_.emplace(handle.get(), std::move(object));
    return handle.release();
  }
  std::shared_ptr<Object> get(const void* handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return find(handle)->second;
  }
  template <class Handle>
  std::shared_ptr<Object> remove(Handle* handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = find(handle);
    std::shared_ptr<Object> object = std::move(found->second);
    objects_.erase(found);
    delete handle;
    return object;
  }

 private:
  auto find(const void* handle) {
    if (!handle) throw bad_argument(std::string("the ") + what_ + " is NULL");
    const auto found = objects_.find(handle);
    if (found == objects_.end()) throw bad_argument(std::string("the ") + what_ + " was destroyed, or never created");
    return found;
  }

  const char* const what_;
  std::mutex mutex_;
  std::unordered_map<const void*, std::shared_ptr<Object>> objects_;
};

// Both outlive every other static: threads of the program may still call the library while it ends.
Objects<vmp::Recognizer>& recognizers() {
  static auto* const all = new Objects<vmp::Recognizer>("recogniser");
  return *all;
}
Objects<vmp::Stream>& streams() {
  static auto* const all = new Objects<vmp::Stream>("stream");
  return *all;
}

template <class Pointer>
void need(Pointer* pointer, const char* what) {
  if (!pointer) throw bad_argument(std::string(what) + " is NULL");
}

// Check the size of a caller's struct. It must be one that a released version of vmp_edge.h gave the struct: any other
// would cut a member in two. So far each struct has had one size. A struct that grows must also accept its former sizes,
// which are the offsets of its first new members, and `known` then gives these members their defaults.
template <class Struct>
void check_size(const Struct* argument, const char* what) {
  need(argument, what);
  uint32_t size;  // the first member of each struct
  std::memcpy(&size, argument, sizeof size);
  if (size > sizeof(Struct)) throw bad_argument(std::string(what) + " is of a newer version of vmp_edge.h");
  if (size != sizeof(Struct))
    throw bad_argument(std::string(what) + " has a struct_size of " + std::to_string(size) +
                       ", which it has in no version of vmp_edge.h: initialise it by its macro");
}

// Return a caller's struct as this version declares it.
template <class Struct>
Struct known(const Struct* argument, Struct defaults, const char* what) {
  check_size(argument, what);
  std::memcpy(static_cast<void*>(&defaults), argument, defaults.struct_size);
  return defaults;
}

// Copy as much of a struct to the caller's as the caller knows.
template <class Struct>
void give(const Struct& from, Struct* to, const char* what) {
  check_size(to, what);
  std::memcpy(static_cast<void*>(to), &from, from.struct_size);
}

// Check what C++ may not even read as members: the size, and a format that vmp_edge_format does not have.
void check_readable(const vmp_edge_frame& frame) {
  check_size(&frame, "the frame");
  int32_t format;
  static_assert(sizeof format == sizeof frame.format, "the ABI has enumerations of 32 bits");
  std::memcpy(&format, reinterpret_cast<const char*>(&frame) + offsetof(vmp_edge_frame, format), sizeof format);
  if (format < VMP_EDGE_RGB || format > VMP_EDGE_YUYV)
    throw bad_argument("the frame's format is " + std::to_string(format) + ", which is unknown: see vmp_edge_format");
}

}  // namespace

extern "C" {

int32_t vmp_edge_abi_version(void) { return VMP_EDGE_ABI_VERSION; }

const char* vmp_edge_version(void) { return VMP_EDGE_VERSION; }

const char* vmp_edge_status_name(vmp_edge_status status) {
  static const char* const names[] = {"ok", "argument", "bundle", "machine", "engine", "state", "memory", "internal"};
  const int number = static_cast<int>(status);
  return number >= VMP_EDGE_OK && number <= VMP_EDGE_ERROR_INTERNAL ? names[number] : "unknown";
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
    *recognizer = recognizers().add<vmp_edge_recognizer>(std::make_shared<vmp::Recognizer>(
        settings.bundle, settings.threads, settings.libraries ? settings.libraries : ""));
  });
}

void vmp_edge_recognizer_destroy(vmp_edge_recognizer* recognizer) {
  if (!recognizer) return;
  guarded([&] { recognizers().remove(recognizer); });
}

vmp_edge_status vmp_edge_recognizer_get_info(const vmp_edge_recognizer* recognizer, vmp_edge_info* info) {
  return guarded([&] {
    const auto shared = recognizers().get(recognizer);
    const vmp::Manifest& manifest = shared->manifest();
    const vmp_edge_info values = {sizeof(vmp_edge_info),
                                  manifest.frames,
                                  manifest.preprocessing.image_size,
                                  static_cast<int32_t>(manifest.labels.size()),
                                  manifest.window_rate(),
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
    const auto shared = recognizers().get(recognizer);
    const auto& labels = shared->manifest().labels;
    if (index >= 0 && static_cast<size_t>(index) < labels.size()) label = labels[static_cast<size_t>(index)].c_str();
  });
  return label;
}

vmp_edge_status vmp_edge_recognizer_predict(vmp_edge_recognizer* recognizer, const vmp_edge_frame* frames,
                                            int32_t count, int32_t top, vmp_edge_result** result) {
  return guarded([&] {
    const double start = vmp::seconds();
    const auto shared = recognizers().get(recognizer);
    need(frames, "the array of frames");
    need(result, "the place for the result");
    if (count < 1) throw bad_argument("a clip needs at least one frame");
    if (top < 0) throw bad_argument("top is " + std::to_string(top) + "; it must be 0 or more");
    for (int32_t i = 0; i < count; ++i) check_readable(frames[i]);
    auto created = std::make_unique<vmp::Result>(shared, shared->predict(frames, count), -1, top);
    created->latency = vmp::seconds() - start;
    *result = created.release();
  });
}

void vmp_edge_result_destroy(vmp_edge_result* result) { delete static_cast<vmp::Result*>(result); }

vmp_edge_status vmp_edge_result_to_json(const vmp_edge_result* result, char** json) {
  return guarded([&] {
    check_size(result, "the result");
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
    *stream = streams().add<vmp_edge_stream>(std::make_shared<vmp::Stream>(recognizers().get(recognizer), settings));
  });
}

void vmp_edge_stream_destroy(vmp_edge_stream* stream) {
  if (!stream) return;
  guarded([&] { streams().remove(stream)->close(); });
}

vmp_edge_status vmp_edge_stream_push(vmp_edge_stream* stream, const vmp_edge_frame* frame) {
  return guarded([&] {
    need(frame, "the frame");
    const auto shared = streams().get(stream);
    check_readable(*frame);
    shared->push(*frame);
  });
}

int32_t vmp_edge_stream_is_ready(const vmp_edge_stream* stream) {
  int32_t ready = 0;
  guarded([&] { ready = streams().get(stream)->is_ready(); });
  return ready;
}

vmp_edge_status vmp_edge_stream_get_result(vmp_edge_stream* stream, vmp_edge_result** result) {
  return guarded([&] {
    need(result, "the place for the result");
    *result = streams().get(stream)->get_result().release();
  });
}

vmp_edge_status vmp_edge_stream_start(vmp_edge_stream* stream, vmp_edge_callback callback, void* user) {
  return guarded([&] { streams().get(stream)->start(callback, user); });
}

vmp_edge_status vmp_edge_stream_stop(vmp_edge_stream* stream) {
  return guarded([&] { streams().get(stream)->stop(); });
}

vmp_edge_status vmp_edge_stream_reset(vmp_edge_stream* stream) {
  return guarded([&] { streams().get(stream)->reset(); });
}

vmp_edge_status vmp_edge_stream_get_statistics(const vmp_edge_stream* stream, vmp_edge_statistics* statistics) {
  return guarded([&] {
    vmp_edge_statistics values = VMP_EDGE_STATISTICS;
    streams().get(stream)->get_statistics(values);
    give(values, statistics, "the statistics");
  });
}

}  // extern "C"
