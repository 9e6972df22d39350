"""ONNX Runtime on the device: the engine."""
