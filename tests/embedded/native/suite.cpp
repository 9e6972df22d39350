// Uses the whole library under sanitizers, from several threads at once where that is allowed.
//   suite LIBRARIES BUNDLE FAILING_BUNDLE DAMAGED_BUNDLE [FRAMES]
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
  if (count < 5) return std::fprintf(stderr, "usage: suite LIBRARIES BUNDLE FAILING DAMAGED [FRAMES]\n"), 2;
  try {
    Recognizer recognizer(arguments[2], 0, arguments[1]);
    if (count > 5) return soak(recognizer, std::atol(arguments[5])), 0;
    one_after_another(recognizer);
    all_at_once(recognizer);
    errors(arguments[1], arguments[3], arguments[4]);
  } catch (const Error& error) {
    std::fprintf(stderr, "suite: %s\n", error.what());
    return 1;
  }
  std::puts("done");
  return 0;
}
