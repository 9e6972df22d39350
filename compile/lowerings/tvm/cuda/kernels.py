"""The hand-written CUDA kernels as a bundle has them: each with its sizes and options as constants, called from TIR.

`runtimes/cuda/src` holds the device code as templates over plain structs. What is written here are the kernels around
it, text of a few lines each that fills such a struct, and the TIR functions that launch them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm.script import tirx

from vmp_edge.runtimes.building import source_folder

TYPES = {"float32": "float", "float16": "__half"}
LANES, SHARED_BYTES, STATES_PER_THREAD, CONV_STEPS, CONV_RUNS = 64, 48 << 10, 16, 16, 4  # of tuning.h
TILE_COLUMNS, THREADS = 64, 128  # of gemm.cuh
TILE_ROWS = (64, 32, 16)
NORMALISE_WARPS = 4  # of rms.cuh
HEADERS = ("scan.cuh", "conv.cuh", "gemm.cuh", "rms.cuh")
SHARED = "__shared__ __align__(32)"  # what wmma's loads ask for


@dataclass(frozen=True)
class Gpu:
    """What kernels are tuned for.

    Attributes:
        sm: compute capability, 10 * major + minor.
        processors: streaming multiprocessors.
    """

    sm: int
    processors: int


@dataclass(frozen=True)
class View:
    """Columns of a row-major array (..., rows, columns): what a kernel reads without anyone copying them.

    Attributes:
        stride: numbers between rows, the array's columns.
        offset: where the first row's first number is.
    """

    stride: int
    offset: int = 0

    def of(self, name: str) -> str:
        """The C expression of a vmp_cuda_input or output of one batch item."""
        return f"{{{name} + {self.offset}, 0, {self.stride}}}"


@dataclass(frozen=True)
class Buffer:
    """A tensor that an operation takes: its name in the kernels, shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Launch:
    """One kernel of an operation.

    Attributes:
        name: the kernel's.
        bounds: its ``__launch_bounds__``, in C.
        body: its statements, in C, over the operation's buffers.
        grid, block: sizes, (x, y, z).
    """

    name: str
    bounds: str
    body: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


@dataclass(frozen=True)
class Operation:
    """Kernels that are launched one after the other on the same buffers, the inputs first.

    Attributes:
        name: of the TIR function.
        inputs, outputs: its buffers; some of the outputs may be workspace.
        launches: its kernels.
    """

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    launches: tuple[Launch, ...]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Inputs and outputs."""
        return (*self.inputs, *self.outputs)

    def source(self) -> str:
        """The kernels, in CUDA C++, over `HEADERS`."""
        const = {buffer.name: "const " for buffer in self.inputs}
        parameters = ", ".join(
            f"{const.get(buffer.name, '')}{TYPES[buffer.dtype]}* __restrict__ {buffer.name}" for buffer in self.buffers
        )
        return "".join(
            f'extern "C" __global__ void __launch_bounds__({launch.bounds}) {launch.name}({parameters}) {{\n'
            f"{launch.body}}}\n"
            for launch in self.launches
        )

    def function(self) -> tvm.tirx.PrimFunc:
        """The TIR function that launches the kernels."""
        arguments = ", ".join(f"{b.name}: T.Buffer({b.shape}, '{b.dtype}')" for b in self.buffers)
        pointers = ", ".join(f"{buffer.name}.data" for buffer in self.buffers)
        lines = ["@T.prim_func(private=True, s_tir=True)", f"def operation({arguments}):"]
        # 8 is an opaque function, which no pass fuses; a block, because passes look for one
        lines += ["    T.func_attr({'op_pattern': 8, 'tirx.is_scheduled': True})", "    with T.sblock('launches'):"]
        for kind, buffers in (("reads", self.inputs), ("writes", self.outputs)):
            regions = (f"{b.name}[{', '.join(f'0:{size}' for size in b.shape)}]" for b in buffers)
            lines.append(f"        T.{kind}({', '.join(regions)})")
        for launch in self.launches:
            sizes = ", ".join(map(str, (*launch.grid, *launch.block)))
            lines.append(f"        T.call_packed('{launch.name}', {pointers}, {sizes})")
        return tvm.script.from_source("\n".join(lines), extra_vars={"T": tirx})


def source_of(operations: Sequence[Operation]) -> str:
    """CUDA C++ of all their kernels; its headers are in ``runtimes/cuda``."""
    headers = "".join(f'#include "{header}"\n' for header in HEADERS)
    return headers + "using namespace vmp_cuda;\n" + "".join(operation.source() for operation in operations)


def gemm(
    name: str, m: int, n: int, view: View, k: int, dtype: str, out: str, extras: Sequence[str], gpu: Gpu
) -> Operation:
    """y (m, n) = a (m, k) @ w (n, k)^T [+ bias (n)] [+ residual (m, n)]; a is `view` of rows of `view.stride` numbers.

    Args:
        name: the operation's.
        m, n, k: sizes.
        view: where a is.
        dtype: of a and w.
        out: dtype of y.
        extras: of ``bias`` and ``residual``, in this order.
        gpu: has the number of processors that there should be blocks for.
    """
    columns = -(-n // TILE_COLUMNS)
    rows = next((rows for rows in TILE_ROWS if -(-m // rows) * columns >= gpu.processors), TILE_ROWS[-1])
    whole = all(size * 2 % 16 == 0 for size in (k, view.stride, view.offset))  # eight halves at a time
    kind = TYPES[dtype]
    given = [extra if extra in extras else "nullptr" for extra in ("bias", "residual")]
    fields = ", ".join([f"a + {view.offset}", "w", *given, "y", *map(str, (view.stride, m, n, k))])
    body = (
        f"  {SHARED} char memory[gemm_bytes<{kind}, {rows}>()];\n"
        f"  gemm<{kind}, {TYPES[out]}, {rows}, {str(whole).lower()}>(Gemm{{{fields}}}, memory);\n"
    )
    shapes = {"bias": (n,), "residual": (m, n)}
    more = (Buffer(extra, shapes[extra]) for extra in extras)
    inputs = (Buffer("a", (m, view.stride), dtype), Buffer("w", (n, k), dtype), *more)
    launch = Launch(f"{name}_kernel", str(THREADS), body, (columns, -(-m // rows), 1), (THREADS, 1, 1))
    return Operation(name, inputs, (Buffer("y", (m, n), out),), (launch,))


def normalise(name: str, rows: int, width: int, epsilon: float, out: str) -> Operation:
    """y (rows, width) = x / sqrt(mean(x^2) + epsilon), x float32."""
    body = f"  normalise<{TYPES[out]}>(Normalise{{x, y, {width}, {rows}, {width}, {epsilon!r}f}});\n"
    threads = 32 * NORMALISE_WARPS
    launch = Launch(f"{name}_kernel", str(threads), body, (-(-rows // NORMALISE_WARPS), 1, 1), (threads, 1, 1))
    return Operation(name, (Buffer("x", (rows, width)),), (Buffer("y", (rows, width), out),), (launch,))


@dataclass(frozen=True)
class Scan:
    """A scan's sizes and options, as `vmp_edge.ops.reference` has them; batch 1.

    Attributes:
        length, channels, states: L, D, N.
        dtype: of the activations.
        views: of x, dt, B, C and, if there is a gate, z.
        given: of the parameters, those that there are: A_b (then both directions), D, dt_bias.
        reverse, first_input, mask: options.
    """

    length: int
    channels: int
    states: int
    dtype: str
    views: tuple[tuple[str, View], ...]
    given: tuple[str, ...]
    reverse: bool
    first_input: bool
    mask: bool

    def operation(self, name: str, gpu: Gpu) -> Operation:
        """The kernels, and their workspace as outputs after y."""
        plan = ScanPlan.of(self.length, self.channels, self.states, "A_b" in self.given, gpu)
        inputs = [Buffer(view, (self.length, where.stride), self.dtype) for view, where in self.views]
        shapes = {"A": (self.channels, self.states), "A_b": (self.channels, self.states)}
        inputs += [Buffer(given, shapes.get(given, (self.channels,))) for given in ("A", *self.given)]
        work = (plan.directions, plan.chunks)
        outputs = [Buffer("y", (self.length, self.channels), self.dtype)]
        if plan.chunks > 1:
            outputs += [Buffer("sums", (*work, self.channels)), Buffer("ends", (*work, self.states, self.channels))]
        return Operation(name, tuple(inputs), tuple(outputs), tuple(self._launches(name, plan)))

    def _launches(self, name: str, plan: ScanPlan) -> list[Launch]:
        kind, job = TYPES[self.dtype], self._job(plan)
        walker = f"<{kind}, {plan.per_thread}, {plan.groups}>"
        shape = f"{plan.per_thread}, {plan.groups}"
        grid, block = (plan.chunks * plan.channel_blocks, 1, 1), (LANES, plan.directions, 1)

        def walk(kernel: str, floats: str) -> Launch:
            body = f"  {SHARED} float4 memory[({floats} + 3) / 4];\n{job}  {kernel}_chunks{walker}(job, memory);\n"
            bounds = f"{LANES * plan.directions}, kCompiled.{kernel}_blocks * {2 // plan.directions}"
            return Launch(f"{name}_{kernel}", bounds, body, grid, block)

        replay = walk("replay", f"replay_floats<{shape}>({plan.chunk}, {plan.directions})")
        if plan.chunks == 1:
            return [replay]
        carry_grid = (-(-self.channels // LANES), self.states, plan.directions)
        carry = Launch(f"{name}_carry", str(LANES), f"{job}  carry_states<{kind}>(job);\n", carry_grid, (LANES, 1, 1))
        return [walk("summarise", f"staged_floats<{shape}>({plan.chunk})"), carry, replay]

    def _job(self, plan: ScanPlan) -> str:
        views = dict(self.views)
        arrays = [views[key].of(key) if key in views else "{nullptr, 0, 0}" for key in ("x", "dt", "B", "C", "z")]
        parameters = ["A", *(key if key in self.given else "nullptr" for key in ("A_b", "D", "dt_bias"))]
        dtype = "VMP_CUDA_FLOAT32" if self.dtype == "float32" else "VMP_CUDA_FLOAT16"
        flags = [dtype, *(str(int(flag)) for flag in (self.reverse, self.first_input, self.mask))]
        scan = ", ".join([*map(str, (1, self.length, self.channels, self.states)), *arrays, *parameters, *flags])
        work = "sums, ends" if plan.chunks > 1 else "nullptr, nullptr"
        y = View(self.channels).of("y")
        return f"  const Job job{{{{{scan}}}, {y}, {plan.chunk}, {plan.chunks}, {plan.channel_blocks}, {work}}};\n"


def conv(
    name: str, length: int, channels: int, view: View, taps: int, bias: bool, reverse: bool, dtype: str
) -> Operation:
    """y (L, D) = SiLU(the causal convolution of each channel + bias), batch 1; weight (D, taps).

    Args:
        name: the operation's.
        length, channels: L, D.
        view: where x is.
        taps: of the convolution.
        bias: whether there is one, (D).
        reverse: a step sees those after it.
        dtype: of x and y.
    """
    kind, channel_blocks = TYPES[dtype], -(-channels // LANES)
    step_blocks = -(-length // (CONV_STEPS * CONV_RUNS))
    code = "VMP_CUDA_FLOAT32" if dtype == "float32" else "VMP_CUDA_FLOAT16"
    fields = f"1, {length}, {channels}, {taps}, {view.of('x')}, weight, {'bias' if bias else 'nullptr'}, {code}"
    job = f"{{{fields}, {int(reverse)}}}, {View(channels).of('y')}, {channel_blocks}, {step_blocks}"
    body = f"  const ConvJob job{{{job}}};\n  causal_conv_silu<{kind}, {taps}>(job);\n"
    inputs = [Buffer("x", (length, view.stride), dtype), Buffer("weight", (channels, taps))]
    inputs += [Buffer("bias", (channels,))] if bias else []
    grid, block = (channel_blocks * step_blocks, 1, 1), (LANES, CONV_RUNS, 1)
    launch = Launch(f"{name}_kernel", str(LANES * CONV_RUNS), body, grid, block)
    return Operation(name, tuple(inputs), (Buffer("y", (length, channels), dtype),), (launch,))


@dataclass(frozen=True)
class ScanPlan:
    """How a scan is cut into chunks and threads; the rules are those of ``scan.cu``.

    Attributes:
        directions: 1 or 2.
        per_thread, groups: states of a thread, and threads that share a channel.
        channel_blocks: blocks that make up the channels.
        chunk, chunks: steps of a chunk; how many.
    """

    directions: int
    per_thread: int
    groups: int
    channel_blocks: int
    chunk: int
    chunks: int

    @classmethod
    def of(cls, length: int, channels: int, states: int, both: bool, gpu: Gpu) -> ScanPlan:
        """For one batch item."""
        per_thread = 8 if states <= 8 else STATES_PER_THREAD
        groups = 1 if states <= STATES_PER_THREAD else 2 if states <= 2 * STATES_PER_THREAD else 4
        lanes = LANES // groups
        channel_blocks = -(-channels // lanes)
        row = tuning(gpu.sm)
        chunk = row["shortest_chunk"]
        while 2 * chunk <= row["longest_chunk"]:
            shared = 2 * chunk * (2 * per_thread * groups + (lanes if both else 0)) * 4
            if channel_blocks * -(-length // (2 * chunk)) < gpu.processors * row["blocks"] or shared > SHARED_BYTES:
                break
            chunk *= 2
        return cls(1 + both, per_thread, groups, channel_blocks, chunk, -(-length // chunk))


def tuning_table(folder: Path | None = None) -> dict[int, dict[str, int]]:
    """The rows of ``tuning.h`` by compute capability, numbers by their names."""
    text = ((folder or source_folder("cuda")) / "src" / "tuning.h").read_text()
    fields = re.findall(r"^  int (\w+);", text, re.MULTILINE)
    rows = (list(map(int, row.split(","))) for row in re.findall(r"^    \{([\d, ]+)\},", text, re.MULTILINE))
    return {row[0]: dict(zip(fields, row, strict=True)) for row in rows}


def tuning(sm: int) -> dict[str, int]:
    """The row of ``tuning.h`` that a compute capability takes: the newest of its major version that is not newer."""
    table = tuning_table()
    return table[max(row for row in table if row <= sm and row // 10 == sm // 10)]
