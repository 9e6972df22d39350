"""The hand-written CUDA kernels of a bundle, with their sizes and options as constants, and their launches from TIR.

`runtimes/cuda/src` has the device code as templates over plain structs. This module writes the text of the kernels
around it, a few lines each that fill such a struct, and the TIR functions that launch the kernels.
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
LANES, SHARED_BYTES, STATES_PER_THREAD, CONV_STEPS, CONV_RUNS = 64, 48 << 10, 16, 16, 4  # as in tuning.h
TILE_COLUMNS, THREADS = 64, 128  # as in gemm.cuh
TILE_ROWS = (64, 32, 16)
NORMALISE_WARPS = 4  # as in rms.cuh
NO_STATE = ("nullptr", "nullptr")  # neither a state before the first step nor memory for the last one
HEADERS = ("scan.cuh", "conv.cuh", "gemm.cuh", "rms.cuh")
SHARED = "__shared__ __align__(32)"  # the alignment that wmma's loads need


@dataclass(frozen=True)
class Gpu:
    """The GPU that kernels are tuned for.

    Attributes:
        sm: The compute capability, 10 * major + minor.
        processors: The number of streaming multiprocessors.
    """

    sm: int
    processors: int


@dataclass(frozen=True)
class View:
    """Some columns of a row-major array (..., rows, columns), which a kernel reads in place.

    Attributes:
        stride: The distance of two rows in numbers, which is the number of the array's columns.
        offset: The index of the first row's first number.
    """

    stride: int
    offset: int = 0

    def of(self, name: str) -> str:
        """Return the C expression of a vmp_cuda_input or output of one batch item, on the array `name`."""
        return f"{{{name} + {self.offset}, 0, {self.stride}}}"


@dataclass(frozen=True)
class Buffer:
    """A tensor of an operation: its name in the kernels, its shape and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Launch:
    """One kernel of an operation.

    Attributes:
        name: The kernel's name.
        bounds: The kernel's ``__launch_bounds__``, in C.
        body: The kernel's statements, in C, over the operation's buffers.
        grid, block: The sizes (x, y, z) of the grid and of a block.
    """

    name: str
    bounds: str
    body: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


@dataclass(frozen=True)
class Operation:
    """Kernels that are launched one after the other on the same buffers.

    Attributes:
        name: The name of the TIR function that launches the kernels.
        inputs, outputs: The buffers that the kernels read and write; some of the outputs may be workspace.
        launches: The kernels.
    """

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    launches: tuple[Launch, ...]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The inputs, then the outputs."""
        return (*self.inputs, *self.outputs)

    def source(self) -> str:
        """Return the kernels in CUDA C++, for which `HEADERS` must be included."""
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
        """Return the TIR function that launches the kernels."""
        arguments = ", ".join(f"{b.name}: T.Buffer({b.shape}, '{b.dtype}')" for b in self.buffers)
        pointers = ", ".join(f"{buffer.name}.data" for buffer in self.buffers)
        lines = ["@T.prim_func(private=True, s_tir=True)", f"def operation({arguments}):"]
        # 8 marks an opaque function, which no pass fuses; the block is there because passes look for one
        lines += ["    T.func_attr({'op_pattern': 8, 'tirx.is_scheduled': True})", "    with T.sblock('launches'):"]
        for kind, buffers in (("reads", self.inputs), ("writes", self.outputs)):
            regions = (f"{b.name}[{', '.join(f'0:{size}' for size in b.shape)}]" for b in buffers)
            lines.append(f"        T.{kind}({', '.join(regions)})")
        for launch in self.launches:
            sizes = ", ".join(map(str, (*launch.grid, *launch.block)))
            lines.append(f"        T.call_packed('{launch.name}', {pointers}, {sizes})")
        return tvm.script.from_source("\n".join(lines), extra_vars={"T": tirx})


def source_of(operations: Sequence[Operation]) -> str:
    """Return the CUDA C++ of the kernels of all operations; the headers are in ``runtimes/cuda``."""
    headers = "".join(f'#include "{header}"\n' for header in HEADERS)
    return headers + "using namespace vmp_cuda;\n" + "".join(operation.source() for operation in operations)


def gemm(
    name: str, m: int, n: int, view: View, k: int, dtype: str, out: str, extras: Sequence[str], gpu: Gpu
) -> Operation:
    """Return the operation y (m, n) = a (m, k) @ w (n, k)^T [+ bias (n)] [+ residual (m, n)].

    Args:
        name: The operation's name.
        m, n, k: The sizes.
        view: The columns of the buffer ``a`` (m, `view.stride`) that are a.
        dtype: The dtype of a and w.
        out: The dtype of y.
        extras: Those of ``bias`` and ``residual`` that are added, in this order.
        gpu: The GPU. Tiles are made so small that there is a block for each of its processors, if possible.
    """
    columns = -(-n // TILE_COLUMNS)
    rows = next((rows for rows in TILE_ROWS if -(-m // rows) * columns >= gpu.processors), TILE_ROWS[-1])
    whole = all(size * 2 % 16 == 0 for size in (k, view.stride, view.offset))  # eight halves at a time
    kind = TYPES[dtype]
    pointers = [extra if extra in extras else "nullptr" for extra in ("bias", "residual")]
    fields = ", ".join([f"a + {view.offset}", "w", *pointers, "y", *map(str, (view.stride, m, n, k))])
    body = (
        f"  {SHARED} char memory[gemm_bytes<{kind}, {rows}>()];\n"
        f"  gemm<{kind}, {TYPES[out]}, {rows}, {str(whole).lower()}>(Gemm{{{fields}}}, memory);\n"
    )
    shapes = {"bias": (n,), "residual": (m, n)}
    added = (Buffer(extra, shapes[extra]) for extra in extras)
    inputs = (Buffer("a", (m, view.stride), dtype), Buffer("w", (n, k), dtype), *added)
    launch = Launch(f"{name}_kernel", str(THREADS), body, (columns, -(-m // rows), 1), (THREADS, 1, 1))
    return Operation(name, inputs, (Buffer("y", (m, n), out),), (launch,))


def normalise(name: str, rows: int, width: int, epsilon: float, out: str) -> Operation:
    """Return the operation y (rows, width) = x / sqrt(mean(x^2) + epsilon) of float32 x, with y of the dtype `out`."""
    body = f"  normalise<{TYPES[out]}>(Normalise{{x, y, {width}, {rows}, {width}, {epsilon!r}f}});\n"
    threads = 32 * NORMALISE_WARPS
    launch = Launch(f"{name}_kernel", str(threads), body, (-(-rows // NORMALISE_WARPS), 1, 1), (threads, 1, 1))
    return Operation(name, (Buffer("x", (rows, width)),), (Buffer("y", (rows, width), out),), (launch,))


@dataclass(frozen=True)
class Scan:
    """The sizes and options of a scan of batch 1, as in `vmp_edge.ops.reference`.

    Attributes:
        length, channels, states: The sizes L, D and N.
        dtype: The dtype of the activations.
        views: The views of x, dt, B, C and, if there is a gate, z.
        parameters: The parameters that there are besides A: some of A_b (which means both directions), D and dt_bias.
        reverse, first_input, mask: The options.
    """

    length: int
    channels: int
    states: int
    dtype: str
    views: tuple[tuple[str, View], ...]
    parameters: tuple[str, ...]
    reverse: bool
    first_input: bool
    mask: bool

    def operation(self, name: str, gpu: Gpu) -> Operation:
        """Return the operation of the scan's kernels, with their workspace as outputs after y."""
        plan = ScanPlan.of(self.length, self.channels, self.states, "A_b" in self.parameters, gpu)
        inputs = [Buffer(key, (self.length, view.stride), self.dtype) for key, view in self.views]
        shapes = {"A": (self.channels, self.states), "A_b": (self.channels, self.states)}
        inputs += [Buffer(key, shapes.get(key, (self.channels,))) for key in ("A", *self.parameters)]
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
        parameters = ["A", *(key if key in self.parameters else "nullptr" for key in ("A_b", "D", "dt_bias"))]
        dtype = "VMP_CUDA_FLOAT32" if self.dtype == "float32" else "VMP_CUDA_FLOAT16"
        flags = [dtype, *(str(int(flag)) for flag in (self.reverse, self.first_input, self.mask)), *NO_STATE]
        scan = ", ".join([*map(str, (1, self.length, self.channels, self.states)), *arrays, *parameters, *flags])
        work = "sums, ends" if plan.chunks > 1 else "nullptr, nullptr"
        y = View(self.channels).of("y")
        return f"  const Job job{{{{{scan}}}, {y}, {plan.chunk}, {plan.chunks}, {plan.channel_blocks}, {work}}};\n"


def conv(
    name: str, length: int, channels: int, view: View, taps: int, bias: bool, reverse: bool, dtype: str
) -> Operation:
    """Return the operation y (L, D) = SiLU(causal convolution of each channel + bias), batch 1, weight (D, taps).

    Args:
        name: The operation's name.
        length, channels: The sizes L and D.
        view: The columns of the buffer ``x`` that are x.
        taps: The number of the convolution's taps.
        bias: True if there is a bias (D).
        reverse: True if a step sees the steps after it instead of those before it.
        dtype: The dtype of x and y.
    """
    kind, channel_blocks = TYPES[dtype], -(-channels // LANES)
    step_blocks = -(-length // (CONV_STEPS * CONV_RUNS))
    code = "VMP_CUDA_FLOAT32" if dtype == "float32" else "VMP_CUDA_FLOAT16"
    fields = f"1, {length}, {channels}, {taps}, {view.of('x')}, weight, {'bias' if bias else 'nullptr'}, {code}"
    fields = ", ".join([fields, str(int(reverse)), *NO_STATE])
    job = f"{{{fields}}}, {View(channels).of('y')}, {channel_blocks}, {step_blocks}"
    body = f"  const ConvJob job{{{job}}};\n  causal_conv_silu<{kind}, {taps}>(job);\n"
    inputs = [Buffer("x", (length, view.stride), dtype), Buffer("weight", (channels, taps))]
    inputs += [Buffer("bias", (channels,))] if bias else []
    grid, block = (channel_blocks * step_blocks, 1, 1), (LANES, CONV_RUNS, 1)
    launch = Launch(f"{name}_kernel", str(LANES * CONV_RUNS), body, grid, block)
    return Operation(name, tuple(inputs), (Buffer("y", (length, channels), dtype),), (launch,))


@dataclass(frozen=True)
class ScanPlan:
    """The cut of a scan into chunks and threads, by the rules of ``scan.cu``.

    Attributes:
        directions: 1 or 2.
        per_thread: The number of states of a thread.
        groups: The number of threads that share a channel.
        channel_blocks: The number of blocks over the channels.
        chunk: The number of steps of a chunk.
        chunks: The number of chunks.
    """

    directions: int
    per_thread: int
    groups: int
    channel_blocks: int
    chunk: int
    chunks: int

    @classmethod
    def of(cls, length: int, channels: int, states: int, both: bool, gpu: Gpu) -> ScanPlan:
        """Return the plan for one batch item; `both` is True for a scan in both directions."""
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
    """Return the rows of ``tuning.h`` by compute capability, each with its numbers by name."""
    text = ((folder or source_folder("cuda")) / "src" / "tuning.h").read_text()
    fields = re.findall(r"^  int (\w+);", text, re.MULTILINE)
    rows = (list(map(int, row.split(","))) for row in re.findall(r"^    \{([\d, ]+)\},", text, re.MULTILINE))
    return {row[0]: dict(zip(fields, row, strict=True)) for row in rows}


def tuning(sm: int) -> dict[str, int]:
    """Return the row of ``tuning.h`` for a compute capability: the newest of its major version that is not newer."""
    table = tuning_table()
    return table[max(row for row in table if row <= sm and row // 10 == sm // 10)]
