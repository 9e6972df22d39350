"""Which tests take long: `make test` begins with them, `make check` leaves them out."""

from __future__ import annotations

# Files by the time that they take, the longest first: two workers that take them in this order end at about the same
# time. Files that are not here follow in the usual order.
LONGEST_FIRST = (
    "tests/compile/test_quantised.py",
    "tests/compile/lowerings/tvm/test_cuda.py",
    "tests/compile/lowerings/tvm/test_int8.py",
    "tests/compile/lowerings/tvm/test_tvm.py",
    "tests/compile/test_build.py",
    "tests/compile/lowerings/test_onnx.py",
    "tests/calibration/test_egomotion.py",
    "tests/embedded/test_engines.py",
    "tests/embedded/test_cross.py",
    "tests/embedded/test_suite.py",
    "tests/embedded/test_package.py",
    "tests/compile/test_per_frame.py",
    "tests/compile/test_stem.py",
    "tests/calibration/test_stem_training.py",
    "tests/compile/test_text_bundles.py",
    "tests/compile/lowerings/test_executorch.py",
    "tests/compile/lowerings/test_steps.py",
    "tests/compile/lowerings/tvm/test_tuning.py",
    "tests/embedded/test_ros1.py",
    "tests/compile/test_cross.py",
    "tests/test_packaging.py",
    "tests/embedded/test_gstreamer.py",
    "tests/ops/test_neon.py",
    "tests/compile/lowerings/delegates/test_qnn.py",
    "tests/calibration/test_together.py",
    "tests/calibration/test_pretrain.py",
    "tests/calibration/test_finetuning.py",
    "tests/cli/test_shared.py",
    "tests/calibration/test_training.py",
    "tests/cli/test_streams.py",
    "tests/test_loading.py",
    "tests/test_types.py",
    "tests/test_checkout.py",
    "tests/calibration/test_train.py",
    "tests/sources/test_network_video.py",
    "tests/models/test_causal.py",
    "tests/ops/test_state.py",
    "tests/zoo/test_hub.py",
    "tests/models/test_published_files.py",
    "tests/compile/test_causal.py",
    "tests/compile/graph/test_stepping.py",
)
_RANKS = {name: number for number, name in enumerate(LONGEST_FIRST)}

# What compiles, builds bundles, emulates another machine or trains.
SLOW = (
    *LONGEST_FIRST,
    "tests/compile/lowerings/",
    "tests/embedded/",
    "tests/npu/",
    "tests/ops/test_cuda_",
)


def rank(nodeid: str) -> int:
    """Return a test's place among the files by the time that they take."""
    return _RANKS.get(nodeid.split("::")[0], len(_RANKS))


def is_slow(nodeid: str) -> bool:
    """Return whether a test belongs to those that `make check` leaves out."""
    return nodeid.startswith(SLOW)
