"""ExecuTorch programs give the source model's numbers, and run without PyTorch."""

import json
import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bundles import unsealed
from small_models import VARIANTS, make_model

from vmp_edge import ops
from vmp_edge.errors import BundleError, UsageError
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, error
from vmp_edge.ops.stateful_cases import STATE_CASES, errors
from vmp_edge.preprocessing import empty_video

pytest.importorskip("executorch", reason="needs executorch")

from vmp_edge.compile import graph
from vmp_edge.compile.lowerings.executorch import to_executorch
from vmp_edge.runtimes.executorch.engine import ExecuTorchEngine, _Library, _Program
from vmp_edge.runtimes.executorch.library import LIBRARY, build_library


@pytest.fixture(scope="session")
def library():
    return build_library()


@pytest.fixture(scope="module")
def lowered():
    """A function that lowers a model: each model once, as they differ in options alone."""
    programs = {}

    def lower(model):
        options = repr(model.options)
        if options not in programs:
            programs[options] = to_executorch(graph.export(model))
        return programs[options]

    return lower


@pytest.fixture
def as_bundle(tmp_path, library):
    """A function that returns what an engine sees of a bundle with a program."""

    def make(program, options):
        shutil.copy(library, tmp_path / LIBRARY)
        (tmp_path / "model.pte").write_bytes(program)
        return unsealed(tmp_path, "model.pte", options)

    return make


def test_agrees_with_the_source_model(model, lowered, as_bundle):
    engine = ExecuTorchEngine(as_bundle(lowered(model).buffer, model.options))
    video = np.random.default_rng(0).standard_normal((2, 3, 4, 32, 32), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(video)).numpy()
    got = engine.run(video)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)
    frame_by_frame = empty_video(4, 32)  # as the ring fills it: read in place
    frame_by_frame[...] = video[:1]
    np.testing.assert_array_equal(engine.run(frame_by_frame)[0], got[0])
    engine.close()
    engine.close()


def test_everything_but_the_operators_is_delegated(model, lowered):
    nodes = lowered(model).exported_program().graph_module.graph.nodes
    left = {str(node.target) for node in nodes if node.op == "call_function"}
    left -= {"executorch_call_delegate", "<built-in function getitem>"}
    left = {name for name in left if not name.startswith(("vmp.", "<function alloc"))}
    # the class token alone goes on to the head
    assert left <= {"aten.select_copy.int_out"}


class OneOperator(torch.nn.Module):
    """The operator of a case, with all inputs except x as constants."""

    def __init__(self, case):
        super().__init__()
        self.operator, self.options = getattr(ops, case.operator), case.options()
        self.rest = [name for name, t in case.inputs().items() if name != "x" and t is not None]
        for name in self.rest:
            self.register_buffer(name, case.inputs()[name].contiguous())

    def forward(self, x):
        return self.operator(x, **{name: getattr(self, name) for name in self.rest}, **self.options)


@pytest.mark.parametrize("case", [*SCAN_CASES, *CONV_CASES], ids=lambda case: case.name)
def test_operators_agree_with_the_reference(case, as_bundle):
    """ExecuTorch's out variants of the operators pass the scan's case list."""
    from executorch.exir import to_edge

    x = case.inputs()["x"].contiguous()
    with torch.no_grad():
        program = to_edge(torch.export.export(OneOperator(case), (x,), strict=False)).to_executorch()
    engine = ExecuTorchEngine(as_bundle(program.buffer, SimpleNamespace(num_classes=x.numel(), tubelet_size=1)))
    y = engine.run_tokens(x.numpy()[None])
    assert error(case, torch.from_numpy(y).reshape(x.shape)) <= case.tolerance


class OneStatefulOperator(OneOperator):
    """A model of one operator with a state, which takes the scanned sequence and the state, if there is one."""

    def __init__(self, case):
        super().__init__(case)
        self.rest = [name for name in self.rest if name != "state"]

    def forward(self, x, state=None):
        rest = {name: getattr(self, name) for name in self.rest}
        return self.operator(x, **rest, **self.options, state=state, return_state=True)


@pytest.mark.parametrize("case", [case for case in STATE_CASES if len(case.splits) == 1], ids=lambda case: case.name)
def test_operators_carry_a_state(case, as_bundle):
    from executorch.exir import to_edge

    x, state = case.inputs()["x"].contiguous(), case.state()
    given = (x,) if state is None else (x, state)
    with torch.no_grad():
        program = to_edge(torch.export.export(OneStatefulOperator(case), given, strict=False)).to_executorch()
    bundle = as_bundle(program.buffer, SimpleNamespace(num_classes=x.numel(), tubelet_size=1))
    sizes = x.numel(), math.prod(case.state_shape())
    loaded = _Program(_Library.get(bundle, None), bundle, "model.pte", *sizes)
    y, last = (torch.from_numpy(result) for result in loaded.run(*(tensor.numpy() for tensor in given)))
    loaded.close()
    assert errors(case, y.reshape(x.shape), last.reshape(case.state_shape())) <= case.tolerance


def test_damaged_program(as_bundle, model):
    with pytest.raises(BundleError, match=r"model\.pte: cannot load the program"):
        ExecuTorchEngine(as_bundle(b"not a program" * 100, model.options))


DAMAGED = """
import sys
import numpy as np
from vmp_edge.bundle.reading import Bundle, describe_file
from vmp_edge.errors import VmpError
from vmp_edge.runtimes.executorch.engine import ExecuTorchEngine
from dataclasses import replace
from pathlib import Path

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
bundle, good, results = Bundle.open(folder), (folder / "model.pte").read_bytes(), []
random = np.random.default_rng(seed)
video = np.zeros((1, 3, 4, 32, 32), np.float32)
for number in range(int(sys.argv[3])):
    data = bytearray(good)
    for place in random.integers(0, 20000, random.choice([1, 4, 16])):
        data[place % len(data)] = random.integers(0, 256)
    (folder / "damaged.pte").write_bytes(data)
    files = {**bundle.manifest.files, "damaged.pte": describe_file(folder / "damaged.pte")}
    manifest = replace(bundle.manifest, program="damaged.pte", files=files)
    print(number, end=" ", flush=True)
    try:
        engine = ExecuTorchEngine(Bundle(folder, manifest), threads=1)
        try:
            engine.run(video)
        finally:
            engine.close()
    except VmpError as error:
        assert chr(10) not in str(error)
        print("refused")
    else:
        print("ran")
"""


@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_program_with_a_fitting_hash_does_not_crash(as_bundle, lowered, tmp_path, seed):
    """Changes of the tables at its beginning. What the checks let pass runs, and gives some numbers."""
    model = make_model(**VARIANTS["pro"])
    bundle = as_bundle(lowered(model).buffer, model.options)
    (tmp_path / "manifest.yaml").write_text(bundle.manifest.to_yaml())
    command = [sys.executable, "-c", DAMAGED, str(tmp_path), str(seed), "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout.splitlines()[-1], done.stderr[-500:])
    assert done.stdout.count("refused") > 10


def test_threads_are_one_number_a_process(as_bundle, model):
    bundle = as_bundle(b"", model.options)
    used = _Library.get(bundle, None).threads
    with pytest.raises(UsageError, match=f"runs on {used} threads in this process and cannot change to {used + 1}"):
        ExecuTorchEngine(bundle, threads=used + 1)


def test_library_carries_no_path_of_the_building_machine(library):
    from elftools.elf.elffile import ELFFile

    with library.open("rb") as file:
        tags = list(ELFFile(file).get_section_by_name(".dynamic").iter_tags())
    assert not [tag for tag in tags if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")]


RUN_WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None  # importing it now fails
import numpy as np
import vmp_edge
recognizer = vmp_edge.load(sys.argv[1])
size = recognizer.manifest.image_size
prediction = recognizer.predict(np.zeros((4, size, size, 3), np.uint8))
print(json.dumps({"label": prediction.label}))
"""


def test_runs_without_importing_pytorch(tmp_path, checkpoint, once):
    bundle = once.bundle("--target", "host", "--engine", "executorch", checkpoint=checkpoint)
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["label"].startswith("class-")
    assert done.stderr == ""
