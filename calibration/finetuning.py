"""Quantisation-aware fine-tuning: train a program's weights so that quantising them loses less.

The student computes like the quantised program: all that becomes int8 is rounded to the same numbers in float32 (Jacob
et al., arXiv 1712.05877), and gradients pass the rounding as if it were not there (Bengio et al., arXiv 1308.3432). The
teacher is the unchanged program, so that clips need no labels. The result is a float program, which is then quantised
like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from vmp_edge.errors import UsageError
from vmp_edge.progress import part

from .decoding import Progress
from .distillation import features_loss, predictions_loss
from .quantisation import DYNAMIC, STATIC, Recipe, input_of, layers, static_ranges
from .train.optimiser import PATCH_RATE

HEAD, PATCH = "head", "patch.weight"
FIXED = (".A", ".A_b", "normalise.mean.weight")  # decay rates must stay negative; the mean is no weight


@dataclass(frozen=True)
class Schedule:
    """The settings of a fine-tuning.

    Attributes:
        steps: Steps of the optimiser (Adam), whose learning rate falls along half a cosine.
        batch: Clips in a step.
        learning_rate: Learning rate of the first step.
        temperature: See `predictions_loss`.
        feature_weight: Weight of the loss on the features that the head takes; the loss on predictions has weight 1.
        seed: Decides the clips' order, and which clips are mirrored.
    """

    steps: int
    batch: int = 8
    learning_rate: float = 1e-4
    temperature: float = 2.0
    feature_weight: float = 1.0
    seed: int = 0


def finetune(
    program: ExportedProgram,
    recipe: Recipe,
    inputs: Sequence[Tensor],
    schedule: Schedule,
    progress: Progress | None = None,
) -> ExportedProgram:
    """Fine-tune a program's weights for a recipe; equal arguments give equal programs.

    Args:
        program: Made by `vmp_edge.compile.graph.export`; stays unchanged.
        recipe: The recipe that will quantise the program. Its smoothing and rotation are not simulated.
        inputs: Clips in the program's shape, columns last. Half of the times, at random, a clip is mirrored.
        schedule: See `Schedule`.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.

    Raises:
        UsageError: There are no inputs.
    """
    if not inputs:
        raise UsageError("fine-tuning learns from clips, and there are none")
    module = program.module(check_guards=False)
    weights = {name: value.detach().clone() for name, value in module.named_parameters()}
    trained = {name: value.requires_grad_() for name, value in weights.items() if not name.endswith(FIXED)}
    teacher, student = Network(module), Student(module, weights, recipe, static_ranges(module, recipe, inputs))
    optimiser = torch.optim.Adam(
        {"params": [value], "lr": schedule.learning_rate * (PATCH_RATE if name == PATCH else 1)}
        for name, value in trained.items()
    )
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.steps)
    batches = _batches(inputs, schedule)
    for batch in progress(batches, total=schedule.steps, desc="fine-tune", unit="step") if progress else batches:
        for clip in batch:
            loss = _loss(student.outputs(clip), teacher.outputs(clip), schedule) / schedule.batch
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        falling.step()
    for name, value in weights.items():
        owner, _, last = name.rpartition(".")
        setattr(module.get_submodule(owner), last, torch.nn.Parameter(value.detach(), requires_grad=False))
    with part("export"):
        return torch.export.export(module, tuple(program.example_inputs[0]), strict=False)


def _batches(inputs: Sequence[Tensor], schedule: Schedule) -> Iterator[list[Tensor]]:
    """Yield one batch for each step: all clips in random order, again and again."""
    rng = np.random.default_rng(schedule.seed)
    order: list[int] = []
    for _ in range(schedule.steps):
        while len(order) < schedule.batch:
            order += rng.permutation(len(inputs)).tolist()
        chosen, order = order[: schedule.batch], order[schedule.batch :]
        yield [inputs[i].flip(-1) if rng.random() < 0.5 else inputs[i] for i in chosen]


def _loss(student: Outputs, teacher: Outputs, schedule: Schedule) -> Tensor:
    loss = predictions_loss(student.logits, teacher.logits, schedule.temperature)
    return loss + schedule.feature_weight * features_loss(student.features, teacher.features)


@dataclass(frozen=True)
class Outputs:
    """A network's outputs for a clip: logits (1, classes), and the features (1, C) that its head takes."""

    logits: Tensor
    features: Tensor


class Network(Interpreter):
    """Run a program's module and keep the features that its head takes."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.layers = {node: name for name, node in layers(module)}
        self.features: Tensor | None = None

    def outputs(self, clip: Tensor) -> Outputs:
        """Run the network on a clip in the program's shape."""
        logits = self.run(clip)
        assert self.features is not None
        return Outputs(logits, self.features)

    def run_node(self, n: Node) -> Any:
        """Run a node like `Interpreter`, but let `compute` run the layers."""
        if n not in self.layers:
            return super().run_node(n)
        args, _ = self.fetch_args_kwargs_from_env(n)
        if self.layers[n] == HEAD:
            self.features = args[0]
        return self.compute(n, *args)

    def compute(self, layer: Node, x: Tensor, weight: Tensor, *others: Any) -> Tensor:
        """Compute a linear layer or a convolution from its arguments."""
        result: Tensor = layer.target(x, weight, *others)  # type: ignore[operator]
        return result


class Student(Network):
    """A network with other weights that rounds like the program that a recipe quantises.

    Args:
        module: The float program's module.
        weights: The student's parameters by name.
        recipe: See `Recipe`.
        ranges: Scale and zero point of everything that has a fixed range, see `static_ranges`.
    """

    def __init__(
        self,
        module: GraphModule,
        weights: Mapping[str, Tensor],
        recipe: Recipe,
        ranges: Mapping[Node, tuple[float, int]],
    ) -> None:
        super().__init__(module)
        self.weights, self.recipe, self.ranges = weights, recipe, ranges

    def fetch_attr(self, target: str) -> Any:
        """Return a parameter or buffer by its name."""
        return self.weights[target] if target in self.weights else super().fetch_attr(target)

    def compute(self, layer: Node, x: Tensor, weight: Tensor, *others: Any) -> Tensor:
        """Compute a layer with the rounding of its kind in the recipe."""
        kind = self.recipe.kind(self.layers[layer])
        if kind is None:
            return super().compute(layer, x, weight, *others)
        if kind == STATIC:
            x = torch.fake_quantize_per_tensor_affine(x, *self.ranges[input_of(layer)], -128, 127)
        elif kind == DYNAMIC:
            x = _round_by_token(x)
        result = super().compute(layer, x, _round_by_channel(weight), *others)
        if kind == STATIC and self.recipe.outputs:
            result = torch.fake_quantize_per_tensor_affine(result, *self.ranges[layer], -128, 127)
        return result


def _round_by_channel(weight: Tensor) -> Tensor:
    scales = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-6) / 127
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)


def _round_by_token(x: Tensor) -> Tensor:
    ops = torch.ops.quantized_decomposed
    with torch.no_grad():
        scales, zeros = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
        rounded = ops.quantize_per_token(x, scales, zeros, -128, 127, torch.int8)
        error = ops.dequantize_per_token(rounded, scales, zeros, -128, 127, torch.int8, torch.float32) - x
    straight_through: Tensor = x + error  # the gradient is that of x
    return straight_through
