// The code that the nodes of ROS 1 and ROS 2 share: it turns images of sensor_msgs into recognitions. The messages of
// both have the same names of fields, so that their types are template parameters here. Only their stamps differ; here
// they are nanoseconds.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "vmp_edge.hpp"

namespace vmp_edge_bridge {

struct Encoding {
  const char* name;
  vmp_edge_format format;
  uint32_t bytes;  // bytes per pixel
};

// Return the encoding of an image, or nullptr if the library does not support it. ROS's "yuv422" is UYVY, which is not
// supported.
inline const Encoding* find_encoding(const std::string& name) {
  static const Encoding known[] = {{"rgb8", VMP_EDGE_RGB, 3},
                                   {"bgr8", VMP_EDGE_BGR, 3},
                                   {"mono8", VMP_EDGE_GREY, 1},
                                   {"yuv422_yuy2", VMP_EDGE_YUYV, 2},
                                   {"yuyv", VMP_EDGE_YUYV, 2}};
  for (const Encoding& encoding : known)
    if (name == encoding.name) return &encoding;
  return nullptr;
}

struct Settings {
  std::string bundle, libraries;
  int threads = 0;
  vmp_edge_stream_config stream = VMP_EDGE_STREAM_CONFIG;

  // Call visit(name, value) for each parameter of the node. `visit` may change the value.
  template <class Visit>
  void each(Visit visit) {
    visit("bundle", bundle);
    visit("libraries", libraries);
    visit("threads", threads);
    visit("hop", stream.hop);
    visit("fps", stream.fps);
    visit("smoothing_windows", stream.smoothing_windows);
    visit("smoothing_margin", stream.smoothing_margin);
    visit("smoothing_hold", stream.smoothing_hold);
    visit("top", stream.top);
  }
};

struct Recognition {
  const vmp_edge_result& result;
  int64_t stamp;         // stamp of the window's newest image, in nanoseconds
  std::string frame_id;  // frame_id of the camera

  // Fill in a message, except for its stamp.
  template <class Message>
  void write(Message& message) const {
    message.header.frame_id = frame_id;
    message.label = result.name;
    message.score = result.score;
    for (int32_t i = 0; i < result.num_top; ++i) {
      message.labels.push_back(result.top[i].name);
      message.scores.push_back(result.top[i].score);
    }
    message.window_start = 1e-9 * static_cast<double>(stamp) - (result.timestamp - result.first_timestamp);
    message.latency = result.latency;
    message.frame = static_cast<uint64_t>(result.frame);
    message.dropped = static_cast<uint64_t>(result.dropped);
  }
};

class Bridge {
 public:
  struct Outputs {
    std::function<void(const Recognition&)> publish;  // called in a thread of the bridge's own, like `fail`
    std::function<void(const std::string&)> fail;     // recognition failed, and there will be no more results
    std::function<void(const std::string&)> warn;     // called in the thread that calls `take`
  };

  // Throws vmp_edge::Error, std::invalid_argument.
  Bridge(const Settings& settings, Outputs outputs)
      : outputs_(std::move(outputs)),
        recognizer_(checked(settings.bundle), settings.threads, settings.libraries),
        stream_(recognizer_, settings.stream) {
    stream_.start([this](const vmp_edge_result* result, const char* message) {
      if (result) give(*result);
      else outputs_.fail(message);
    });
  }

  // Push an image, without waiting for its recognition. Only one thread may call it.
  //   stamp: nanoseconds. If it is earlier than the previous one, a recording has started again, and all frames are
  //     forgotten.
  // An image that cannot be used is left out, with one warning for each reason.
  template <class Image>
  void take(const Image& image, int64_t stamp) {
    const Encoding* encoding = find_encoding(image.encoding);
    if (!encoding)
      return warn_once("images of encoding '" + image.encoding +
                       "' are left out; rgb8, bgr8, mono8 and yuv422_yuy2 are taken");
    const uint64_t row = uint64_t{image.width} * encoding->bytes, step = image.step ? image.step : row;
    if (image.height && image.data.size() < step * (image.height - 1) + row)
      return warn_once("images with less data than their size says are left out");
    if (!last_ || stamp < *last_) start_again(stamp, image.header.frame_id);
    last_ = stamp;
    push(vmp_edge::Frame(encoding->format, image.data.data(), static_cast<int>(image.width),
                         static_cast<int>(image.height), step, 1e-9 * static_cast<double>(stamp - origin_)));
  }

 private:
  static const std::string& checked(const std::string& bundle) {
    if (bundle.empty()) throw std::invalid_argument("set the parameter 'bundle' to a bundle's folder");
    return bundle;
  }

  void push(const vmp_edge::Frame& frame) {
    try {
      stream_.push(frame);
    } catch (const vmp_edge::Error& error) {
      if (error.status != VMP_EDGE_ERROR_ENGINE) warn_once(error.what());  // otherwise `fail` was called
      return;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    ++pushed_;
  }

  // Timestamps count from the first image, because a double is not precise enough for nanoseconds since 1970.
  void start_again(int64_t stamp, const std::string& frame_id) {
    if (last_) outputs_.warn("time jumped back: starting again");
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      origin_ = stamp;
      frame_id_ = frame_id;
      first_frame_ = pushed_;
    }
    stream_.reset();
  }

  void give(const vmp_edge_result& result) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (result.frame < first_frame_) return;  // it is from before time jumped back
    const Recognition recognition{result, origin_ + static_cast<int64_t>(result.timestamp * 1e9 + 0.5), frame_id_};
    lock.unlock();
    outputs_.publish(recognition);
  }

  void warn_once(const std::string& text) {
    if (warned_.insert(text).second) outputs_.warn(text);
  }

  const Outputs outputs_;
  std::optional<int64_t> last_;  // stamp of the last image
  std::set<std::string> warned_;
  std::mutex mutex_;  // guards the next members, which the stream's thread uses, too
  int64_t origin_ = 0, pushed_ = 0, first_frame_ = 0;
  std::string frame_id_;
  vmp_edge::Recognizer recognizer_;
  vmp_edge::Stream stream_;  // the last member, so that its thread ends before the others are destroyed
};

}  // namespace vmp_edge_bridge
