// Recognises actions in a video file or a camera's pictures, read by OpenCV. A thread of the stream's own recognises.
//   recognize_opencv BUNDLE SOURCE       SOURCE is a file, an address, or the number of a camera
#include <iostream>
#include <opencv2/videoio.hpp>
#include <string>

#include "vmp_edge.hpp"

namespace {

bool open(cv::VideoCapture& capture, const std::string& source) {
  const bool number = source.find_first_not_of("0123456789") == std::string::npos;
  return number ? capture.open(std::stoi(source)) : capture.open(source);
}

int recognize(const std::string& bundle, const std::string& source) {
  cv::VideoCapture capture;
  if (!open(capture, source)) {
    std::cerr << "recognize_opencv: " << source << " cannot be opened\n";
    return 1;
  }
  vmp_edge::Recognizer recognizer(bundle);
  vmp_edge::Stream stream(recognizer);
  stream.start([](const vmp_edge_result* result, const char* message) {
    if (result) std::cout << vmp_edge::Result::to_json(*result) << std::endl;
    else std::cerr << "recognize_opencv: " << message << "\n";
  });
  for (cv::Mat picture; capture.read(picture);) {
    const double seconds = capture.get(cv::CAP_PROP_POS_MSEC) / 1e3;
    stream.push(vmp_edge::Frame::bgr(picture.data, picture.cols, picture.rows, picture.step, seconds));
  }
  stream.stop();
  const vmp_edge_statistics statistics = stream.statistics();
  std::cerr << statistics.windows << " windows of " << statistics.frames << " frames, " << statistics.dropped
            << " dropped, " << statistics.latency_p50 * 1e3 << " ms a window\n";
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: " << arguments[0] << " BUNDLE SOURCE\n";
    return 2;
  }
  try {
    return recognize(arguments[1], arguments[2]);
  } catch (const vmp_edge::Error& error) {
    std::cerr << "recognize_opencv: " << error.what() << "\n";
    return 1;
  }
}
