"""OpenVINO on the device: the engine."""
