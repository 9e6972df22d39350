"""The lowering to TVM: a shared library with generated matrix products and the native scan."""
