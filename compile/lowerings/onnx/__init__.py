"""The lowering to ONNX, for ONNX Runtime and OpenVINO."""
