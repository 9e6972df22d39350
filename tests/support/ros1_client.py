"""Publishes images and prints the recognitions that come back; for Debian's Python, which has rospy.

Its first argument is JSON: a list of steps, each {"images": [...], "expect": n}. The images of a step are published,
then it waits for n recognitions. An image is {"encoding", "width", "height", "pattern"}, bytes that are repeated over
each row, and if need be "padding": bytes after each row, "stamp": [seconds, nanoseconds], "size": so many bytes of data
only, "pause": seconds before it. The last line is a JSON list with the recognitions of each step.
"""

import json
import sys
import time

import rospy
from sensor_msgs.msg import Image
from vmp_edge_ros.msg import Recognition


def make_image(encoding, width, height, pattern, padding=0, stamp=(0, 0), size=None):
    bytes_of = {"rgb8": 3, "bgr8": 3, "mono8": 1}
    row = bytes(pattern) * (width * bytes_of.get(encoding, 2) // len(pattern))
    image = Image(encoding=encoding, width=width, height=height, step=len(row) + padding)
    image.header.stamp = rospy.Time(*stamp)
    image.header.frame_id = "front"
    image.data = ((row + bytes(padding)) * height)[:size]
    return image


def describe(message):
    stamp = message.header.stamp
    found = {name: getattr(message, name) for name in message.__slots__ if name != "header"}
    return {**found, "stamp": [stamp.secs, stamp.nsecs], "frame_id": message.header.frame_id}


def wait_until(done, what):
    limit = time.monotonic() + 60
    while not done():
        if time.monotonic() > limit:
            sys.exit(f"waited for {what}")
        time.sleep(0.005)


def main():
    rospy.init_node("client", anonymous=True, disable_signals=True)
    received = []
    subscriber = rospy.Subscriber("recognition", Recognition, received.append)
    publisher = rospy.Publisher("image", Image, queue_size=1000)
    wait_until(lambda: publisher.get_num_connections() and subscriber.get_num_connections(), "the node")
    answers = []
    for step in json.loads(sys.argv[1]):
        before = len(received)
        for image in step["images"]:
            time.sleep(image.pop("pause", 0))
            publisher.publish(make_image(**image))
        wait_until(lambda: len(received) >= before + step["expect"], f"{step['expect']} recognitions")  # noqa: B023
        answers.append([describe(message) for message in received[before:]])
    print(json.dumps(answers))


main()
