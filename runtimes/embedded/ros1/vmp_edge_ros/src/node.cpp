// vmp_edge_node takes sensor_msgs/Image from the topic `image` and publishes vmp_edge_ros/Recognition on `recognition`
// (docs/robotics.md).
#include <ros/ros.h>
#include <sensor_msgs/Image.h>

#include <atomic>
#include <stdexcept>
#include <string>

#include "bridge.hpp"
#include "vmp_edge_ros/Recognition.h"

namespace {

using Message = vmp_edge_ros::Recognition;

vmp_edge_bridge::Settings read_settings() {
  const ros::NodeHandle parameters("~");
  vmp_edge_bridge::Settings settings;
  settings.each([&parameters](const std::string& name, auto& value) {
    if (parameters.hasParam(name) && !parameters.getParam(name, value))
      throw std::invalid_argument("the parameter '" + name + "' is of the wrong type");
  });
  return settings;
}

class Node {
 public:
  explicit Node(ros::NodeHandle& node)
      : publisher_(node.advertise<Message>("recognition", 16)),
        bridge_(read_settings(), {[this](const auto& recognition) { publish(recognition); },
                                  [this](const std::string& message) { fail(message); },
                                  [](const std::string& message) { ROS_WARN("%s", message.c_str()); }}),
        subscriber_(node.subscribe("image", 8, &Node::take, this, ros::TransportHints().tcpNoDelay())) {}

  bool failed() const { return failed_; }

 private:
  void take(const sensor_msgs::ImageConstPtr& image) {
    const ros::Time stamp = image->header.stamp.isZero() ? ros::Time::now() : image->header.stamp;
    bridge_.take(*image, static_cast<int64_t>(stamp.toNSec()));
  }

  void publish(const vmp_edge_bridge::Recognition& recognition) {
    Message message;
    recognition.write(message);
    message.header.stamp.fromNSec(static_cast<uint64_t>(recognition.stamp));
    publisher_.publish(message);
  }

  void fail(const std::string& message) {
    ROS_FATAL("%s", message.c_str());
    failed_ = true;
    ros::requestShutdown();
  }

  std::atomic<bool> failed_{false};
  ros::Publisher publisher_;
  vmp_edge_bridge::Bridge bridge_;  // declared after the publisher that it calls
  ros::Subscriber subscriber_;
};

}  // namespace

int main(int argc, char** argv) {
  ros::init(argc, argv, "vmp_edge_node");
  ros::NodeHandle handle;  // messages are logged as long as a handle exists
  try {
    Node node(handle);
    ros::spin();
    return node.failed();
  } catch (const std::exception& error) {
    ROS_FATAL("%s", error.what());
    return 1;
  }
}
