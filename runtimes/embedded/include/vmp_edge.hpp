// vmp_edge.h for C++17: objects that free what they own, exceptions instead of status codes, views instead of pointers
// with lengths. It is a header only, so that exceptions are thrown in the program and never inside the library.
//
//   vmp_edge::Recognizer recognizer("bundles/host");
//   vmp_edge::Stream stream(recognizer);
//   for (;;) {
//     stream.push(vmp_edge::Frame::bgr(mat.data, mat.cols, mat.rows, mat.step, seconds_now()));
//     if (vmp_edge::Result result = stream.get_result()) std::cout << result.name() << " " << result.score() << "\n";
//   }
//
// Functions throw vmp_edge::Error for the errors that vmp_edge.h lists. Threads and units are the same as there.
#ifndef VMP_EDGE_HPP
#define VMP_EDGE_HPP

#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "vmp_edge.h"

namespace vmp_edge {

class Error : public std::runtime_error {
 public:
  Error(vmp_edge_status status, const char* message) : std::runtime_error(message), status(status) {}
  vmp_edge_status status;
};

inline void check(vmp_edge_status status) {
  if (status != VMP_EDGE_OK) throw Error(status, vmp_edge_last_error());
}

// Throws Error if the loaded library is of another version than this header.
inline void check_version() {
  if (vmp_edge_abi_version() != VMP_EDGE_ABI_VERSION)
    throw Error(VMP_EDGE_ERROR_ENGINE, "libvmp_edge is of another version than the program was compiled for");
}

// The `size` values from `data` on, like std::span of C++20.
template <class T>
class View {
 public:
  View(const T* data, size_t size) : data_(data), size_(size) {}
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  const T& operator[](size_t index) const { return data_[index]; }

 private:
  const T* data_;
  size_t size_;
};

struct Frame : vmp_edge_frame {
  // A frame in one plane. `stride` is in bytes, 0 if there is no gap between rows. `timestamp` is in seconds; a
  // negative one is replaced by the time of the call that takes the frame.
  Frame(vmp_edge_format format, const uint8_t* data, int width, int height, size_t stride = 0, double timestamp = -1)
      : vmp_edge_frame(VMP_EDGE_FRAME) {
    this->format = format;
    this->width = width, this->height = height;
    this->data[0] = data;
    this->stride[0] = static_cast<int32_t>(stride);
    this->timestamp = timestamp;
  }
  static Frame bgr(const uint8_t* data, int width, int height, size_t stride = 0, double timestamp = -1) {
    return Frame(VMP_EDGE_BGR, data, width, height, stride, timestamp);
  }
  static Frame rgb(const uint8_t* data, int width, int height, size_t stride = 0, double timestamp = -1) {
    return Frame(VMP_EDGE_RGB, data, width, height, stride, timestamp);
  }
  static Frame nv12(const uint8_t* luma, const uint8_t* chroma, int width, int height, size_t luma_stride = 0,
                    size_t chroma_stride = 0, double timestamp = -1) {
    Frame frame(VMP_EDGE_NV12, luma, width, height, luma_stride, timestamp);
    frame.data[1] = chroma;
    frame.stride[1] = static_cast<int32_t>(chroma_stride);
    return frame;
  }
};

// A result, or none: test it as a bool before calling its other functions.
class Result {
 public:
  explicit Result(vmp_edge_result* result = nullptr) : result_(result) {}
  explicit operator bool() const { return result_ != nullptr; }
  const vmp_edge_result& operator*() const { return *result_; }
  const vmp_edge_result* operator->() const { return result_.get(); }
  std::string_view name() const { return result_->name; }
  float score() const { return result_->score; }
  View<float> scores() const { return {result_->scores, static_cast<size_t>(result_->classes)}; }
  View<vmp_edge_score> top() const { return {result_->top, static_cast<size_t>(result_->num_top)}; }
  std::string json() const { return to_json(*result_); }

  static std::string to_json(const vmp_edge_result& result) {
    char* text = nullptr;
    check(vmp_edge_result_to_json(&result, &text));
    const std::unique_ptr<char, decltype(&vmp_edge_string_destroy)> owned(text, vmp_edge_string_destroy);
    return text;
  }

 private:
  struct Destroy {
    void operator()(vmp_edge_result* result) const { vmp_edge_result_destroy(result); }
  };
  std::unique_ptr<vmp_edge_result, Destroy> result_;
};

class Recognizer {
 public:
  explicit Recognizer(const std::string& bundle, int threads = 0, const std::string& libraries = "") {
    check_version();
    vmp_edge_recognizer_config config = VMP_EDGE_RECOGNIZER_CONFIG;
    config.bundle = bundle.c_str();
    config.threads = threads;
    config.libraries = libraries.c_str();
    vmp_edge_recognizer* recognizer = nullptr;
    check(vmp_edge_recognizer_create(&config, &recognizer));
    recognizer_.reset(recognizer);
  }

  vmp_edge_info info() const {
    vmp_edge_info info = VMP_EDGE_INFO;
    check(vmp_edge_recognizer_get_info(get(), &info));
    return info;
  }
  std::string_view label(int index) const {
    const char* name = vmp_edge_recognizer_label(get(), index);
    if (!name) throw Error(VMP_EDGE_ERROR_ARGUMENT, "there is no such class");
    return name;
  }
  Result predict(View<vmp_edge_frame> frames, int top = 5) {
    vmp_edge_result* result = nullptr;
    check(vmp_edge_recognizer_predict(get(), frames.data(), static_cast<int32_t>(frames.size()), top, &result));
    return Result(result);
  }
  vmp_edge_recognizer* get() const { return recognizer_.get(); }

 private:
  struct Destroy {
    void operator()(vmp_edge_recognizer* recognizer) const { vmp_edge_recognizer_destroy(recognizer); }
  };
  std::unique_ptr<vmp_edge_recognizer, Destroy> recognizer_;
};

class Stream {
 public:
  using Callback = std::function<void(const vmp_edge_result* result, const char* message)>;

  explicit Stream(Recognizer& recognizer, const vmp_edge_stream_config& config = VMP_EDGE_STREAM_CONFIG) {
    vmp_edge_stream* stream = nullptr;
    check(vmp_edge_stream_create(recognizer.get(), &config, &stream));
    stream_.reset(stream);
  }

  void push(const vmp_edge_frame& frame) { check(vmp_edge_stream_push(get(), &frame)); }
  bool is_ready() const { return vmp_edge_stream_is_ready(get()) != 0; }
  Result get_result() {
    vmp_edge_result* result = nullptr;
    check(vmp_edge_stream_get_result(get(), &result));
    return Result(result);
  }
  // Without a callback, the program calls get_result. An exception in a callback ends the program, as in any thread.
  void start(Callback callback = nullptr) {
    const bool called = static_cast<bool>(callback);
    auto owned = std::make_unique<Shared>(std::make_shared<Callback>(std::move(callback)));
    check(vmp_edge_stream_start(get(), called ? &call : nullptr, owned.get()));
    callback_ = std::move(owned);
  }
  void stop() { check(vmp_edge_stream_stop(get())); }
  void reset() { check(vmp_edge_stream_reset(get())); }
  vmp_edge_statistics statistics() const {
    vmp_edge_statistics statistics = VMP_EDGE_STATISTICS;
    check(vmp_edge_stream_get_statistics(get(), &statistics));
    return statistics;
  }
  vmp_edge_stream* get() const { return stream_.get(); }

 private:
  using Shared = std::shared_ptr<Callback>;
  static void call(const vmp_edge_result* result, const char* message, void* user) {
    const Shared callback = *static_cast<Shared*>(user);  // lives on if the callback destroys the stream
    (*callback)(result, message);
  }
  struct Destroy {
    void operator()(vmp_edge_stream* stream) const { vmp_edge_stream_destroy(stream); }
  };
  std::unique_ptr<Shared> callback_;  // declared before the stream, whose thread may call it until destroyed
  std::unique_ptr<vmp_edge_stream, Destroy> stream_;
};

}  // namespace vmp_edge

#endif
