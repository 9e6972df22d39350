"""The source model that a build starts from: one of ours, a preset with random weights, or a published checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmp_edge.errors import UsageError
from vmp_edge.names import BLANKS, cleaned, distinct, shown, unfit_labels, unfit_name
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.progress import note

from . import variants

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba
    from vmp_edge.models.zoo import ZooModel

    from .variants import Variant

DEFAULT_MODEL = "egomotion-nano"
_LONGEST_LIST = 16 << 20  # bytes of a file of labels


@dataclass(frozen=True)
class Choice:
    """Which source model a build takes.

    Attributes:
        model: The name of one of our models or of a preset; None takes `DEFAULT_MODEL` if there is no checkpoint.
        checkpoint: A published ``.pth`` file.
        family: The family of the checkpoint; None finds it out.
        frames: Frames of a clip; None keeps the model's.
        image_size: Pixels of a frame's side; None keeps the model's.
        labels: The classes' labels; None numbers the classes, or takes the labels that our model has.
        labels_file: The file that the labels are from, for messages.
        key: Which model to take from a checkpoint with several; see `load_checkpoint`.
        readout: What the checkpoint's head reads; None keeps the checkpoint's.
    """

    model: str | None
    checkpoint: Path | None
    family: str | None
    frames: int | None
    image_size: int | None
    labels: tuple[str, ...] | None
    labels_file: Path | None
    key: str | None = None
    readout: str | None = None

    @property
    def is_procedural(self) -> bool:
        """True if it is the model for which clips with labels can be drawn."""
        return self.checkpoint is None and (self.model or DEFAULT_MODEL) == DEFAULT_MODEL

    def check(self) -> None:
        """Check all that can be known without loading anything.

        Raises:
            UsageError: Both a model and a checkpoint are chosen, or a key without a checkpoint.
        """
        if self.checkpoint is not None and self.model is not None:
            raise UsageError("give --model or --checkpoint, not both")
        if self.key is not None and self.checkpoint is None:
            raise UsageError("--checkpoint-key chooses a model in a file: give the file with --checkpoint")
        if self.readout is not None and self.checkpoint is None:
            raise UsageError("--readout is for checkpoints: give the file with --checkpoint")

    def check_file(self) -> None:
        """Check that the checkpoint is there and may be one, without reading it whole.

        Raises:
            CheckpointError: It is not; the text says what it is instead.
        """
        if self.checkpoint is not None:
            from vmp_edge.models import checkpoint_file

            checkpoint_file.check(self.checkpoint)


@dataclass(frozen=True)
class SourceModel:
    """A source model with what its manifest says about it.

    Attributes:
        name: The model's name.
        module: The PyTorch model.
        labels: One label for each class, in the order of the logits.
        preprocessing: From frames to the model's video.
        frame_rate: Frames per second that the model was trained on; None if the rate does not matter.
        accuracy: What was measured on the model, as the manifest has it.
    """

    name: str
    module: VideoMamba
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None = None
    accuracy: dict[str, Any] = dataclasses.field(default_factory=dict)

    def cut(self, variant: Variant) -> SourceModel:
        """Return a cheaper variant of the model. Fewer frames span the same time."""
        module = variants.cut(self.module, variant)
        rate = self.frame_rate
        if rate is not None:
            rate *= module.options.num_frames / self.module.options.num_frames
        preprocessing = dataclasses.replace(self.preprocessing, image_size=module.options.image_size)
        return SourceModel(f"{self.name}-{variant.name}", module, self.labels, preprocessing, rate)


def load(choice: Choice) -> SourceModel:
    """Load the source model that was chosen.

    Raises:
        UsageError: The model is unknown, or an option does not fit it.
        MissingDependencyError: PyTorch is not installed.
        CheckpointError: The checkpoint cannot be loaded.
    """
    from vmp_edge import models
    from vmp_edge.models import zoo

    if choice.checkpoint is not None:
        module = models.load_checkpoint(
            choice.checkpoint,
            choice.family,
            choice.frames,
            choice.image_size,
            key=choice.key,
            readout=choice.readout,
        )
        if module.options.directions == "forward" and module.options.readout == "class_token":
            raise UsageError(
                f"{choice.checkpoint}: scans in one direction, and its head reads the first token, which sees no other "
                "one: give --readout mean, and fine-tune the head for it"
            )
        if not module.options.num_classes:
            raise UsageError(
                f"{choice.checkpoint}: is a backbone without a classifier, which has nothing to recognise: fine-tune "
                "it for your classes first; its features are to be had from Python (vmp_edge.models.load_checkpoint)"
            )
        return _published(cleaned(choice.checkpoint.stem), module, choice)
    name = choice.model or DEFAULT_MODEL
    if name in zoo.names():
        return _own(zoo.load(name), name, choice)
    return _untrained(name, choice)


def _published(name: str, module: VideoMamba, choice: Choice) -> SourceModel:
    options = module.options
    labels = _labels(choice, tuple(f"class-{index}" for index in range(options.num_classes)))
    return SourceModel(name, module, labels, Preprocessing(options.image_size))


def _own(model: ZooModel, name: str, choice: Choice) -> SourceModel:
    options = model.module.options
    sizes = (choice.frames or options.num_frames, choice.image_size or options.image_size)
    if sizes != (options.num_frames, options.image_size):
        raise UsageError(f"{name} takes {options.num_frames} frames of {options.image_size} pixels and nothing else")
    labels = _labels(choice, model.labels)
    return SourceModel(name, model.module, labels, model.preprocessing, model.frame_rate, model.accuracy)


def _untrained(name: str, choice: Choice) -> SourceModel:
    """A preset with random weights, the same ones each time."""
    import torch

    from vmp_edge import models

    sizes = {"num_frames": choice.frames, "image_size": choice.image_size}
    options = {key: value for key, value in sizes.items() if value is not None}
    if choice.labels is not None:
        options["num_classes"] = len(choice.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = models.create(name, **options)
    note(
        f"vmp-edge: {name} has no weights here and gets random ones: good for timing, recognises nothing; "
        "give trained ones with --checkpoint"
    )
    return _published(name, module, choice)


def _labels(choice: Choice, default: Sequence[str]) -> tuple[str, ...]:
    """The chosen labels, or the default ones, of which there is one for each class."""
    if choice.labels is None:
        return tuple(default)
    if len(choice.labels) != len(default):
        raise UsageError(
            f"{choice.labels_file}: has {len(choice.labels)} labels, but the model has {len(default)} classes"
        )
    return choice.labels


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a text file with one label on each line.

    A byte order mark, ends of lines as Windows writes them, and blanks around a label do no harm. Labels that are equal
    get numbers, and a message says so.

    Raises:
        UsageError: The file cannot be read, is not in UTF-8, has no labels, or has one that cannot be a label.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_LIST + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a text file with a label a line ({error})") from error
    except UnicodeDecodeError as error:
        broken = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {broken} is not in UTF-8: save the file as UTF-8 and try again") from error
    if len(content) > _LONGEST_LIST:
        raise UsageError(f"{path}: is larger than {_LONGEST_LIST >> 20} MiB: it is not a list of labels")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    labels = []
    for number, line in enumerate(lines, 1):
        if not (label := line.strip(BLANKS + "\t")):
            continue
        if problem := unfit_name(label):
            raise UsageError(f"{path}: line {number} is {shown(label)}, which cannot be a label: {problem}")
        labels.append(label)
    if not labels:
        raise UsageError(f"{path}: holds no labels; it should have one a line")
    return _distinct(path, tuple(labels))


def _distinct(path: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    result = distinct(labels)
    if changed := [new for old, new in zip(labels, result, strict=True) if old != new]:
        named = ", ".join(map(shown, changed[:3])) + (", ..." if len(changed) > 3 else "")
        note(f"vmp-edge: {path}: labels that are there before got a number: {named}")
    if problem := unfit_labels(result):
        raise UsageError(f"{path}: {problem}")
    return result
