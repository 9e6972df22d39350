// Uses the whole library under sanitizers, from several threads at once where that is allowed.
//   suite LIBRARIES BUNDLE FAILING_BUNDLE DAMAGED_BUNDLE SLOW_BUNDLE [FRAMES]
// With FRAMES, it pushes that many frames instead, and prints the resident memory before and after.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "vmp_edge.hpp"

namespace {

#define REQUIRE(condition)                                                            \
  do {                                                                                \
    if (!(condition)) {                                                               \
      std::fprintf(stderr, "suite.cpp:%d: %s does not hold\n", __LINE__, #condition); \
      std::exit(1);                                                                   \
    }                                                                                 \
  } while (false)

using namespace vmp_edge;

template <class Call>
vmp_edge_status status_of(Call call) {
  try {
    call();
    return VMP_EDGE_OK;
  } catch (const Error& error) {
    REQUIRE(*error.what());
    return error.status;
  }
}

// A frame in memory of exactly its size, so that sanitizers notice reads past its end.
struct Picture {
  Picture(vmp_edge_format format, int width, int height, int gap, std::mt19937& random)
      : frame(format, nullptr, width, height) {
    const int bytes = format == VMP_EDGE_YUYV                            ? 2 * width
                      : format == VMP_EDGE_RGB || format == VMP_EDGE_BGR ? 3 * width
                                                                         : width;
    fill(0, bytes, height, gap, random);
    if (format == VMP_EDGE_NV12) fill(1, bytes, height / 2, gap, random);
  }
  void fill(int plane, int bytes, int rows, int gap, std::mt19937& random) {
    planes[plane].resize(static_cast<size_t>((bytes + gap) * (rows - 1) + bytes));
    std::fill(planes[plane].begin(), planes[plane].end(), static_cast<uint8_t>(random()));
    frame.data[plane] = planes[plane].data();
    frame.stride[plane] = bytes + gap;
  }
  std::vector<uint8_t> planes[2];
  Frame frame;
};

Picture any_picture(std::mt19937& random) {
  const auto format = static_cast<vmp_edge_format>(random() % 5);
  const int width = 2 * (1 + static_cast<int>(random() % 60)), height = 2 * (1 + static_cast<int>(random() % 60));
  return Picture(format, width, height, static_cast<int>(random() % 8), random);
}

void one_after_another(Recognizer& recognizer) {
  std::mt19937 random(1);
  Stream stream(recognizer);
  int results = 0;
  for (int i = 0; i < 300; ++i) {
    const Picture picture = any_picture(random);
    stream.push(picture.frame);
    while (const Result result = stream.get_result()) {
      REQUIRE(result.scores().size() == 3 && result.top().size() == 3 && !result.json().empty());
      ++results;
    }
    if (i == 150) stream.reset();
  }
  REQUIRE(results > 60);
  const Picture picture = any_picture(random);
  const vmp_edge_frame clip[2] = {picture.frame, picture.frame};
  REQUIRE(recognizer.predict({clip, 2}, 1).top().size() == 1);
}

// Use one stream from several threads at once: push, get results, reset.
void all_at_once(Recognizer& recognizer) {
  std::atomic<int> called{0};
  Stream stream(recognizer);
  stream.start([&](const vmp_edge_result* result, const char*) { called += result != nullptr; });
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 2; ++seed)
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 150; ++i) stream.push(any_picture(random).frame);
    });
  threads.emplace_back([&] {
    while (!done) stream.is_ready(), stream.statistics(), stream.get_result(), std::this_thread::yield();
  });
  threads.emplace_back([&] {
    for (int i = 0; i < 5; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2)), stream.reset();
  });
  threads.emplace_back([&] {
    Stream second(recognizer);  // a second stream of the same recogniser
    std::mt19937 random(9);
    for (int i = 0; i < 60; ++i) second.push(any_picture(random).frame), second.get_result();
  });
  for (size_t i = 0; i < threads.size(); ++i)
    if (i != 2) threads[i].join();
  done = true;
  threads[2].join();
  stream.stop();
  REQUIRE(called > 0 && stream.statistics().frames == 300);
  stream.start();  // start it again, and destroy it while it runs
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) stream.push(any_picture(random).frame);
}

// Reset a stream while its thread recognises. No result of frames from before a reset may come after it, whether the
// program asks for results or the callback takes them.
void reset_while_recognising(Recognizer& recognizer, bool with_callback, int resets) {
  std::mt19937 random(5);
  const Picture picture = any_picture(random);
  vmp_edge_stream_config config = VMP_EDGE_STREAM_CONFIG;
  config.hop = config.stride = 1;
  Stream stream(recognizer, config);
  std::atomic<double> begin{0};  // timestamps of frames since the last reset are at least this
  std::atomic<long> stale{0}, given{0};
  const auto take = [&](double earliest, double timestamp) { stale += timestamp < earliest, ++given; };
  // The callback reads `begin` last: had a reset ended while it ran, it would see the new value.
  if (with_callback)
    stream.start([&](const vmp_edge_result* result, const char*) {
      std::this_thread::yield();
      if (result) take(begin, result->timestamp);
    });
  else stream.start();
  std::atomic<bool> done{false};
  std::thread asking([&] {
    while (!done) {
      const double earliest = begin;
      if (const Result result = stream.get_result()) take(earliest, result->timestamp);
    }
  });
  for (int i = 0; i < resets; ++i) {
    Frame frame = picture.frame;
    for (int j = 0; j < 8; ++j) frame.timestamp = begin + 0.01 * j, stream.push(frame);
    stream.reset();
    begin = begin + 1000;
  }
  Frame frame = picture.frame;  // frames until a result of them, so that there is one at least
  while (!given) frame.timestamp = std::max(frame.timestamp, begin.load()) + 0.01, stream.push(frame);
  done = true;
  asking.join();
  REQUIRE(stale == 0);
}

// A callback may do with its stream what it likes, even destroy it while other threads use it.
void callback_uses_its_stream(Recognizer& recognizer) {
  for (int round = 0; round < 20; ++round) {
    std::mt19937 random(6);
    const Picture picture = any_picture(random);
    vmp_edge_stream_config config = VMP_EDGE_STREAM_CONFIG;
    config.hop = config.stride = 1;
    auto stream = std::make_unique<Stream>(recognizer, config);
    vmp_edge_stream* const handle = stream->get();
    std::atomic<int> called{0};
    std::atomic<bool> ended{false};
    stream->start([&](const vmp_edge_result*, const char*) {
      const int call = ++called;
      REQUIRE(vmp_edge_stream_stop(handle) == VMP_EDGE_ERROR_STATE);
      REQUIRE(vmp_edge_stream_start(handle, nullptr, nullptr) == VMP_EDGE_ERROR_STATE);
      REQUIRE(vmp_edge_stream_push(handle, &picture.frame) == VMP_EDGE_OK);
      REQUIRE(vmp_edge_stream_reset(handle) == VMP_EDGE_OK);
      if (call < 3) return;
      stream.reset();
      REQUIRE(vmp_edge_stream_push(handle, &picture.frame) == VMP_EDGE_ERROR_ARGUMENT);
      vmp_edge_stream_destroy(handle);  // again: nothing happens
      ended = true;
    });
    const auto push = [&] {
      while (!ended) vmp_edge_stream_push(handle, &picture.frame);
      return vmp_edge_stream_push(handle, &picture.frame);
    };
    std::thread other([&] { REQUIRE(push() == VMP_EDGE_ERROR_ARGUMENT); });
    REQUIRE(push() == VMP_EDGE_ERROR_ARGUMENT);
    other.join();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    REQUIRE(called == 3);
  }
}

// Several threads use a stream while another one destroys it.
void destroyed_in_use(Recognizer& recognizer) {
  for (int round = 0; round < 20; ++round) {
    std::mt19937 random(7);
    const Picture picture = any_picture(random);
    auto stream = std::make_unique<Stream>(recognizer);
    vmp_edge_stream* const handle = stream->get();
    if (round % 2) stream->start([](const vmp_edge_result*, const char*) {});
    std::vector<std::thread> threads;
    std::atomic<int> pushed{0};
    for (int i = 0; i < 2; ++i)
      threads.emplace_back([&] {
        while (vmp_edge_stream_push(handle, &picture.frame) == VMP_EDGE_OK) {
          vmp_edge_result* result = nullptr;
          if (vmp_edge_stream_get_result(handle, &result) == VMP_EDGE_OK) vmp_edge_result_destroy(result);
          ++pushed;
        }
      });
    while (pushed < 20) std::this_thread::yield();
    stream.reset();
    for (std::thread& thread : threads) thread.join();
  }
}

// Streams of a slow recogniser have as many windows, one as the other.
void fair_turns(Recognizer& slow) {
  std::mt19937 random(8);
  const Picture picture = any_picture(random);
  vmp_edge_stream_config config = VMP_EDGE_STREAM_CONFIG;
  config.hop = config.stride = 1;
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(std::make_unique<Stream>(slow, config)), streams.back()->start();
  const auto windows = [&](size_t i) { return streams[i]->statistics().windows; };
  // Frames come all the time, so that every stream always asks for a turn.
  while (windows(0) < 12)
    for (const auto& stream : streams) stream->push(picture.frame);
  for (size_t i = 1; i < streams.size(); ++i) REQUIRE(std::abs(windows(i) - windows(0)) <= 3);
}

void errors(const std::string& libraries, const std::string& failing, const std::string& damaged) {
  REQUIRE(status_of([&] { Recognizer("nowhere", 0, libraries); }) == VMP_EDGE_ERROR_BUNDLE);
  REQUIRE(status_of([&] { Recognizer(damaged, 0, libraries); }) == VMP_EDGE_ERROR_BUNDLE);
  Recognizer recognizer(failing, 0, libraries);
  Stream stream(recognizer);
  std::mt19937 random(2);
  const auto push_and_ask = [&] {
    for (int i = 0; i < 50; ++i) stream.push(any_picture(random).frame), stream.get_result();
  };
  REQUIRE(status_of(push_and_ask) == VMP_EDGE_ERROR_ENGINE);
  vmp_edge_frame frame = VMP_EDGE_FRAME;
  REQUIRE(status_of([&] { stream.push(frame); }) == VMP_EDGE_ERROR_ARGUMENT);
  vmp_edge_stream_config config = VMP_EDGE_STREAM_CONFIG;
  config.hop = 0;
  REQUIRE(status_of([&] { Stream(recognizer, config); }) == VMP_EDGE_ERROR_ARGUMENT);
}

long resident_kilobytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("VmRSS:", 0) == 0) return std::atol(line.c_str() + 6);
  return 0;
}

// Push many frames. The calling thread and a thread of the stream's own take turns to recognise.
void soak(Recognizer& recognizer, long frames) {
  std::mt19937 random(4);
  Stream stream(recognizer);
  long before = 0, windows = 0;
  for (long i = 0; i < frames; ++i) {
    if (i == frames / 10) before = resident_kilobytes();  // caches and arenas have reached their size
    if (i % 10000 == 5000) stream.start([&](const vmp_edge_result*, const char*) {});
    if (i % 10000 == 9999) stream.stop();
    stream.push(any_picture(random).frame);
    windows += static_cast<bool>(stream.get_result());
  }
  std::printf("%ld frames, %ld kB before, %ld kB after\n", static_cast<long>(stream.statistics().frames), before,
              resident_kilobytes());
  REQUIRE(windows > frames / 20);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 6) return std::fprintf(stderr, "usage: suite LIBRARIES BUNDLE FAILING DAMAGED SLOW [FRAMES]\n"), 2;
  try {
    Recognizer recognizer(arguments[2], 0, arguments[1]);
    if (count > 6) return soak(recognizer, std::atol(arguments[6])), 0;
    one_after_another(recognizer);
    all_at_once(recognizer);
    for (const bool with_callback : {false, true}) reset_while_recognising(recognizer, with_callback, 500);
    callback_uses_its_stream(recognizer);
    destroyed_in_use(recognizer);
    Recognizer slow(arguments[5], 0, arguments[1]);
    fair_turns(slow);
    errors(arguments[1], arguments[3], arguments[4]);
  } catch (const Error& error) {
    std::fprintf(stderr, "suite: %s\n", error.what());
    return 1;
  }
  std::puts("done");
  return 0;
}
