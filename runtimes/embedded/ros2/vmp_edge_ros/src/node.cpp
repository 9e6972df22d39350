// vmp_edge_node takes sensor_msgs/Image from the topic `image` and publishes vmp_edge_ros/Recognition on `recognition`
// (docs/robotics.md).
#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <string>

#include "bridge.hpp"
#include "vmp_edge_ros/msg/recognition.hpp"

namespace {

using Image = sensor_msgs::msg::Image;
using Message = vmp_edge_ros::msg::Recognition;

class Node : public rclcpp::Node {
 public:
  Node()
      : rclcpp::Node("vmp_edge"),
        publisher_(create_publisher<Message>("recognition", 16)),
        bridge_(read_settings(),
                {[this](const vmp_edge_bridge::Recognition& recognition) { publish(recognition); },
                 [this](const std::string& message) { fail(message); },
                 [this](const std::string& message) { RCLCPP_WARN(get_logger(), "%s", message.c_str()); }}),
        subscription_(create_subscription<Image>("image", rclcpp::SensorDataQoS(),
                                                 [this](const Image::ConstSharedPtr image) { take(*image); })) {}

  bool failed() const { return failed_; }

 private:
  vmp_edge_bridge::Settings read_settings() {
    vmp_edge_bridge::Settings settings;
    settings.each([this](const std::string& name, auto& value) { value = declare_parameter(name, value); });
    return settings;
  }

  void take(const Image& image) {
    const rclcpp::Time stamp(image.header.stamp);
    bridge_.take(image, stamp.nanoseconds() == 0 ? now().nanoseconds() : stamp.nanoseconds());
  }

  void publish(const vmp_edge_bridge::Recognition& recognition) {
    Message message;
    recognition.write(message);
    message.header.stamp = rclcpp::Time(recognition.stamp);
    publisher_->publish(message);
  }

  void fail(const std::string& message) {
    RCLCPP_FATAL(get_logger(), "%s", message.c_str());
    failed_ = true;
    rclcpp::shutdown();
  }

  std::atomic<bool> failed_{false};
  rclcpp::Publisher<Message>::SharedPtr publisher_;
  vmp_edge_bridge::Bridge bridge_;  // after what it calls
  rclcpp::Subscription<Image>::SharedPtr subscription_;
};

}  // namespace

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  bool failed = false;
  try {
    const auto node = std::make_shared<Node>();
    rclcpp::spin(node);
    failed = node->failed();
  } catch (const std::exception& error) {
    RCLCPP_FATAL(rclcpp::get_logger("vmp_edge"), "%s", error.what());
    failed = true;
  }
  rclcpp::shutdown();
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
