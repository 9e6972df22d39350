"""A camera that speaks RTSP, for /usr/bin/python3 with Debian's gi: prints its port; gives a small test picture."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1] if len(sys.argv) > 1 else "0")
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(
    "( videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 "
    "! jpegenc ! rtpjpegpay name=pay0 )"
)
server.get_mount_points().add_factory("/camera", factory)
if not server.attach(None):
    sys.exit("the port is taken")
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
