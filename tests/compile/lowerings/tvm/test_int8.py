"""int8 products and quantised programs in TVM bundles give the numbers of numpy and PyTorch."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bundles import unsealed

from vmp_edge.bundle.writing import Staging
from vmp_edge.compile import graph, parity, target
from vmp_edge.compile.lowering import Exported
from vmp_edge.errors import BuildError, MissingDependencyError, UsageError
from vmp_edge.machine import missing_cpu_features
from vmp_edge.models import zoo

pytest.importorskip("tvm", reason="needs apache-tvm, of the extra `tvm`")
pytest.importorskip("torchao", reason="needs torchao, of the extra `compile`")

import torch.ao.quantization.fx._decomposed  # the operators quantized_decomposed
import tvm
from quantisation import DYNAMIC, KINDS, STATIC, WEIGHT_ONLY, quantised
from tvm import relax

from vmp_edge.compile.graph.pt2e import Dynamic, Static, Weight, weight_of
from vmp_edge.compile.lowerings.tvm.cpu import to_relax
from vmp_edge.compile.lowerings.tvm.gemm import TILES, Gemm, Tiles
from vmp_edge.compile.lowerings.tvm.gemm_int8 import DOTS, Int8Gemm
from vmp_edge.compile.lowerings.tvm.lowering import lower, resolve
from vmp_edge.runtimes.tvm.engine import TvmEngine

ALL = {"keep_float": ("*normalise.mean",)}  # the only layers that stay float
LEVELS = {"avx512": "x86-64-v4", "avx2": "x86-64-v3"}
STATIC_RANGE = Static(0.02, -7)
EXTRAS = {"": {}, "bias": {"bias": True}, "all": {"epsilon": 1e-2, "bias": True, "residual": True}}
PER_TOKEN = torch.ops.quantized_decomposed


def here(simd):
    """The target of an instruction set with the features that int8 needs; skips the test if this CPU lacks them."""
    if simd not in LEVELS:
        pytest.skip("not x86-64: by an emulator")
    kind = target.for_precision(target.load(LEVELS[simd]), STATIC)
    if not target.runs_here(kind):
        pytest.skip(f"this CPU lacks {', '.join(missing_cpu_features(kind.cpu_features))}")
    return kind


def run(gemm, kind, rows, weight, *extras):
    """Compile a product and return its result."""
    machine = tvm.target.Target({"kind": "llvm", **kind.llvm})
    module = tvm.IRModule({gemm.name: gemm.function().with_attr("global_symbol", gemm.name)})
    result = tvm.runtime.tensor(np.full((gemm.m, gemm.n), np.nan, np.float32))
    arrays = [rows, *gemm.constants(weight), *extras]
    tvm.compile(module, target=machine)[gemm.name](*map(tvm.runtime.tensor, arrays), result)
    return result.numpy()


def round_trip(a, activations):
    """Quantise activations (M, K) with PyTorch, and return the numbers that int8 stands for, in float64."""
    x = torch.from_numpy(a)
    if isinstance(activations, Dynamic):
        scale, zero = PER_TOKEN.choose_qparams_per_token_asymmetric(x, torch.int8)
        q = PER_TOKEN.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
    else:
        scale, zero = activations.scale, activations.zero_point
        q = PER_TOKEN.quantize_per_tensor(x, scale, zero, activations.least, activations.most, torch.int8)
    return ((q.double() - zero) * scale).numpy()


def random_weight(n, k, activations):
    rng = np.random.default_rng(2)
    values = rng.integers(-127, 128, (n, k), np.int8)
    return Weight(values, rng.uniform(1e-3, 1e-2, n).astype(np.float32), activations)


def multiply(a, weight):
    """The exact product of activations (M, K) and an int8 weight (N, K)."""
    return a @ weight.values.astype(np.float64).T * weight.scales


@pytest.mark.parametrize("simd", LEVELS)
@pytest.mark.parametrize("activations", [STATIC_RANGE, Dynamic()], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    ("sizes", "extras"),
    [((1, 5, 9), ""), ((1, 5, 9), "all"), ((100, 16, 32), "bias"), ((27, 45, 7), "all"), ((13, 33, 30), "")],
    ids=str,
)
def test_products_agree_with_numpy(simd, activations, sizes, extras):
    """Also with one row, and with rows, columns and K beyond whole tiles, vectors and steps, in a wider array."""
    kind, (m, n, k) = here(simd), sizes
    part = {"row": k + 5, "first": 3} if extras == "all" else {}
    dynamic = isinstance(activations, Dynamic)
    gemm = Int8Gemm(m, n, k, DOTS[simd].tile, **part, **EXTRAS[extras], dot=DOTS[simd], dynamic=dynamic)
    rng = np.random.default_rng(1)
    rows = np.full((m, gemm.row or k), np.nan, np.float32)
    a = rows[:, gemm.first : gemm.first + k]
    a[:] = rng.standard_normal(a.shape)
    weight = random_weight(n, k, activations)
    bias = rng.standard_normal(n, dtype=np.float32) * gemm.bias
    residual = rng.standard_normal((m, n), dtype=np.float32) * gemm.residual
    got = run(gemm, kind, rows, weight, *([bias] if gemm.bias else []), *([residual] if gemm.residual else []))
    mean = np.square(a).mean(1, keepdims=True)
    normalised = a if gemm.epsilon is None else a / np.sqrt(mean + np.float32(gemm.epsilon))
    expected = multiply(round_trip(normalised, activations), weight) + bias + residual
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-5)


EXTREMES = {
    "zeros": np.zeros((2, 12)),
    "equal": np.full((2, 12), 0.75),
    "negative": np.full((2, 12), -3.0),
    "tiny": np.full((2, 12), 1e-20),
    "huge": np.linspace(-1e30, 3e30, 24).reshape(2, 12),
    "saturating": np.linspace(-1e9, 1e9, 24).reshape(2, 12),
    "one outlier": np.eye(2, 12) * 1e6 + 1e-3,
}


@pytest.mark.parametrize("simd", LEVELS)
@pytest.mark.parametrize("activations", [STATIC_RANGE, Static(0.5, 127, -127), Dynamic()], ids=str)
def test_extreme_activations(simd, activations):
    """A number beyond the range becomes the end of the range; a row of zeros, or of equal numbers, has a scale."""
    kind, a = here(simd), np.concatenate(list(EXTREMES.values())).astype(np.float32)
    weight = random_weight(4, 12, activations)
    weight.values[:] = np.array([[127], [-127], [1], [0]])
    gemm = Int8Gemm(*a.shape[:1], 4, 12, DOTS[simd].tile, dot=DOTS[simd], dynamic=isinstance(activations, Dynamic))
    expected = multiply(round_trip(a, activations), weight)
    np.testing.assert_allclose(run(gemm, kind, a, weight), expected, rtol=1e-5, atol=1e-12)


def test_one_function_serves_all_static_ranges():
    gemms = [Int8Gemm(3, 4, 5, TILES["avx512"]) for _ in range(2)]
    ranges = [gemms[0].constants(random_weight(4, 5, Static(scale, 1)))[3] for scale in (0.5, 0.25)]
    assert gemms[0].name == gemms[1].name
    np.testing.assert_array_equal(ranges, [[2, 129, 0, 255], [4, 129, 0, 255]])


@pytest.mark.parametrize("simd", LEVELS)
@pytest.mark.parametrize("sizes", [(1, 5, 9), (27, 45, 7)], ids=str)
def test_products_of_int8_weights(simd, sizes):
    """The activations stay float."""
    kind, (m, n, k) = here(simd), sizes
    a = np.random.default_rng(3).standard_normal((m, k), dtype=np.float32)
    weight = random_weight(n, k, None)
    got = run(Gemm(m, n, k, TILES[simd], scaled=True), kind, a, weight)
    np.testing.assert_allclose(got, multiply(a.astype(np.float64), weight), rtol=1e-4, atol=1e-5)


@pytest.fixture
def lowered(tmp_path):
    """A function that lowers a quantised program and returns what an engine sees of the bundle."""

    def make(model, program, precision, kind):
        result = lower(Exported(model, program), Staging(tmp_path), kind, precision)
        needs = {"cpu_features": result.cpu_features, "machine": kind.machine}
        return unsealed(tmp_path, result.program, model.options, **needs)

    return make


def compare(engine, model, program, tolerance):
    """Compare an engine's logits with those of the program in PyTorch, and with the model's."""
    options = model.options
    shape = (1, 3, options.num_frames, options.image_size, options.image_size)
    video = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = program.module()(graph.fold_frames(video, options.tubelet_size)).numpy()
        exact = model(video).numpy()
    got = engine.run(video.numpy())
    np.testing.assert_allclose(got, expected, atol=tolerance, rtol=0)
    assert not np.array_equal(got, exact)  # they would be equal if nothing was quantised
    np.testing.assert_allclose(got, exact, atol=0.02 * np.ptp(exact), rtol=0)


@pytest.mark.parametrize(
    ("model", "kind"), [*(("pro", kind) for kind in KINDS), ("separate-masked", STATIC)], indirect=["model"]
)
def test_agrees_with_the_quantised_program(model, kind, lowered):
    """They agree to the last rounding. Quantised outputs, which we skip, and dynamic ranges of patches are left out."""
    program = quantised(graph.export(model), kind, outputs=None)
    engine = TvmEngine(lowered(model, program, kind, target.load("host")), threads=2)
    compare(engine, model, program, 1e-5)


@pytest.mark.parametrize("kind", [STATIC, DYNAMIC])
def test_agrees_where_it_differs_on_purpose(kind, lowered, make):
    """Outputs are not quantised, and a dynamic range of the patch embedding is that of a patch, not of a pixel row."""
    model = make()
    program = quantised(graph.export(model), kind, **ALL)
    engine = TvmEngine(lowered(model, program, kind, target.load("host")), threads=1)
    compare(engine, model, program, 5e-3)


def test_quantised_outputs_would_only_add_errors():
    """This is why they are skipped. A trained model shows it, as its logits are close enough to the float ones."""
    module, preprocessing = zoo.load("egomotion-nano").module, zoo.load("egomotion-nano").preprocessing
    options = module.options
    sizes = SimpleNamespace(manifest=SimpleNamespace(image_size=options.image_size, frames=options.num_frames))
    clips = [torch.from_numpy(preprocessing.clip(parity.moving_scene(seed, sizes))) for seed in range(12)]
    frames = [graph.fold_frames(clip, options.tubelet_size) for clip in clips]
    errors = {}
    for outputs in (None, "percentile"):
        program = quantised(graph.export(module), STATIC, frames[:2], outputs=outputs).module()
        with torch.no_grad():
            pairs = [(program(folded), module(clip)) for folded, clip in zip(frames[2:], clips[2:], strict=True)]
        errors[outputs] = sum(float((got - expected).square().sum()) for got, expected in pairs)
    assert errors[None] < errors["percentile"]


def test_avx2(lowered, make):
    here("avx2")
    model = make()
    program = quantised(graph.export(model), STATIC, outputs=None)
    bundle = lowered(model, program, STATIC, target.load("x86-64-v3"))
    assert not [name for name in bundle.manifest.cpu_features if name.startswith("avx512")]
    compare(TvmEngine(bundle, threads=1), model, program, 1e-5)


def test_arm64_under_an_emulator(lowered, make):
    """The kind has both static and dynamic ranges."""
    if target.runs_here(target.load("arm64")):
        pytest.skip("this machine is one: the host's tests cover it")
    missing = [tool for tool in ("qemu-aarch64", "aarch64-linux-gnu-g++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    from vmp_edge.compile.emulation.runners import EmulatedTvm

    model = make()
    program = quantised(graph.export(model), STATIC, outputs=None)
    bundle = lowered(model, program, STATIC, target.load("arm64"))
    try:
        engine = EmulatedTvm(bundle)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    compare(engine, model, program, 1e-5)


def constant_bytes(module):
    """The number of bytes of all constants in a module."""
    nodes = []
    relax.analysis.post_order_visit(module["main"], nodes.append)
    return sum(node.value.numpy().nbytes for node in nodes if isinstance(node, tvm.ir.expr.GenericConst))


@pytest.mark.parametrize("kind", [STATIC, WEIGHT_ONLY])
def test_no_float_weights_are_left(kind, make):
    """The layers take at most 30 percent of their memory in float, with filling up and scales included."""
    program = graph.export(make(embed_dim=192, depth=2))
    tiles, dot = Tiles(TILES["avx512"]), DOTS["avx512"]
    whole = constant_bytes(to_relax(program, tiles, dot))
    layers = sum(
        parameter.numel() * 4
        for name, parameter in program.named_parameters()
        if name.endswith(".weight") and "normalise" not in name
    )
    assert whole > layers
    assert whole - constant_bytes(to_relax(quantised(program, kind, **ALL), tiles, dot)) >= 0.7 * layers


def test_cpu_features_that_int8_needs(monkeypatch):
    features = {kind: resolve(target.load("x86-64-v4"), kind).cpu_features for kind in ("fp32", *KINDS)}
    assert [kind for kind in features if "avx512_vnni" in features[kind]] == [STATIC, DYNAMIC]
    assert resolve(target.load("x86-64-v3"), STATIC).cpu_features == target.load("x86-64-v3").cpu_features
    assert "asimddp" in resolve(target.load("arm64"), STATIC).cpu_features
    monkeypatch.setattr(target, "host_machine", lambda: "x86_64")
    monkeypatch.setattr(target, "missing_cpu_features", lambda needed: [name for name in needed if "vnni" in name])
    assert [target.native(precision).name for precision in ("fp32", STATIC)] == ["x86-64-v4", "x86-64-v3"]


@pytest.mark.parametrize(
    ("name", "engine", "message"),
    [
        ("cuda", "tvm", "target cuda has no precision 'int8'; it has fp16, fp32"),
        ("jetson-orin", "tvm", "target jetson-orin has no precision 'int8'; it has fp16, fp32"),
        ("host", "torch", "the engine torch does not do int8 for host; choose --engine .*tvm.*"),
    ],
)
def test_targets_and_engines_without_int8(name, engine, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        target.check_choice(target.load(name), engine, STATIC)


def test_the_program_must_be_of_the_precision(lowered, make):
    model = make()
    program = graph.export(model)
    with pytest.raises(UsageError, match="the program is not quantised, which does not go with int8"):
        lowered(model, program, STATIC, target.load("host"))
    with pytest.raises(UsageError, match="the program is quantised, which does not go with fp32"):
        lowered(model, quantised(program, WEIGHT_ONLY), "fp32", target.load("host"))


def test_other_quantisations_are_refused(make):
    program = quantised(graph.export(make()), WEIGHT_ONLY, **ALL)
    layer = next(node for node in program.graph.nodes if getattr(node.target, "__name__", "") == "conv2d.default")
    scheme = layer.args[1]
    values, scales, zeros = (argument.name for argument in scheme.args[:3])
    parameters = {values: np.zeros((2, 3), np.int8), scales: np.ones(2, np.float32), zeros: np.array([0, 1])}
    with pytest.raises(BuildError, match="only int8 weights with a scale for each row and no zero points"):
        weight_of(layer, parameters)
