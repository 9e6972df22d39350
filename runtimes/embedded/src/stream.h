// Turns a stream of frames into a stream of results: frame ring, sliding window, engine, smoothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "error.h"
#include "recognizer.h"
#include "ring.h"
#include "smoothing.h"

namespace vmp {

// Any thread may call any function, also the stream's own thread from the callback. The own thread keeps the stream
// alive: `close` in a callback cannot wait for it, and lets it end by itself after the callback.
//
// A reset is over once no result of earlier frames can be given any more. Each window knows the ring's generation, which
// `reset` raises first. A result is given only if the generation is still that of its window. Two moments remain between
// that check and the result's arrival: while the own thread calls the callback or stores `latest_`, it holds
// `delivering_`, for which `reset` waits; what was stored by then, `reset` removes.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  // Throws Error (ARGUMENT) if a value of the configuration is out of range.
  Stream(std::shared_ptr<Recognizer> recognizer, const vmp_edge_stream_config& config);
  ~Stream();

  void push(const vmp_edge_frame& frame);
  bool is_ready() const;
  std::unique_ptr<Result> get_result();  // null if there is none
  void start(vmp_edge_callback callback, void* user);
  void stop();
  void reset();
  void close();  // end the stream's own thread for good
  void get_statistics(vmp_edge_statistics& statistics) const;

 private:
  // A window's scores, before smoothing.
  struct Scored {
    Gathered window;
    std::vector<float> scores;
    double start;
  };

  std::optional<Scored> recognise();
  std::unique_ptr<Result> finish(Scored scored);  // null if the stream was reset since the window was read
  void deliver(Scored scored, vmp_edge_callback callback, void* user);
  void work(vmp_edge_callback callback, void* user);
  void end_thread(bool for_good);
  bool in_own_thread() const { return worker_ == std::this_thread::get_id(); }
  void check_thread() const;  // throw the error with which the stream's own thread failed, if it did

  const std::shared_ptr<Recognizer> recognizer_;
  const int32_t top_;
  FrameRing ring_;
  std::mutex recognising_;  // held while a window is read and recognised; guards video_
  std::vector<float> video_;
  std::mutex control_;     // held while the thread is started or stopped
  std::mutex delivering_;  // held while the own thread gives out a result
  std::thread thread_;
  std::atomic<std::thread::id> worker_{};  // the own thread, while it runs
  std::atomic<bool> closed_{false};
  mutable std::mutex mutex_;  // guards the members below
  Smoother smoother_;
  std::optional<Error> failure_;
  std::unique_ptr<Result> latest_;  // with a thread and no callback: the newest result, if not taken yet
  bool running_ = false;
  int64_t generation_ = 0;  // of the ring, when the smoother took its last window
  int64_t windows_ = 0;
  std::deque<double> arrivals_, pushes_, latencies_;
};

}  // namespace vmp
