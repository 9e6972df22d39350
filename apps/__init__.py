"""Programs to read and to start your own from: the demo, and the webcam in a window."""
