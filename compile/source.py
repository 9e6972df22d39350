"""The source model that a build starts from: one of ours, a preset with random weights, or a published checkpoint."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmp_edge import zoo
from vmp_edge.bundle.optional import FamilyEntry
from vmp_edge.errors import UsageError
from vmp_edge.names import cleaned
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.progress import note
from vmp_edge.zoo import LABEL_LISTS, Address, Published
from vmp_edge.zoo.hub import SCHEME
from vmp_edge.zoo.names import all_names, require_known

from . import variants
from .labels import labels_by
from .preparation import Preparation

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba
    from vmp_edge.models.training_facts import TrainingFacts
    from vmp_edge.models.zoo import ZooModel

    from .variants import Variant

DEFAULT_MODEL = "egomotion-nano"
PUBLISHED = "published"  # see `load_checkpoint`
# The address of a file's page on the hub, as a browser shows it; a path made of it has one slash.
_PAGE = re.compile(
    r"https?:/{1,2}huggingface\.co/(?P<name>[\w.-]+/[\w.-]+)/(?:resolve|blob|raw)/(?P<revision>[\w.-]+)/(?P<file>[^?#]+)"
)
# The published code scales the shorter side bilinearly and takes the centre (VideoMamba, video_sm/datasets).
AS_PUBLISHED: dict[str, Any] = {"resize": "crop", "interpolation": "linear"}
# Its evaluation of video-text models scales frames to a square, bicubically; linear is the nearest that bundles have.
AS_PUBLISHED_WITH_TEXTS: dict[str, Any] = {"resize": "stretch", "interpolation": "linear"}


@dataclass(frozen=True)
class Choice:
    """Which source model a build takes. `choose` makes it.

    Attributes:
        model: The name of one of our models or of a preset; None takes `DEFAULT_MODEL` if there is no checkpoint.
        checkpoint: A file, or one on the hub.
        published: The facts about the checkpoint, if it is a published one by its name.
        family: The family of the checkpoint; None finds it out.
        frames: Frames of a clip; None keeps the model's.
        image_size: Pixels of a frame's side; None keeps the model's.
        labels: The classes' labels; None numbers the classes, or takes the labels that the model is known to have.
        labels_from: Where the labels are from, for messages.
        key: Which model to take from a checkpoint with several; see `load_checkpoint`.
        readout: What the checkpoint's head reads; None keeps the checkpoint's.
        preparation: What the user says about how frames are sampled and prepared.
        classes: The number of the checkpoint's first classes to keep; None keeps all, 0 leaves the head out.
        features: Whether the bundle will give features.
    """

    model: str | None
    checkpoint: Path | Address | None
    published: Published | None
    family: str | None
    frames: int | None
    image_size: int | None
    labels: tuple[str, ...] | None
    labels_from: Path | None
    key: str | None = None
    readout: str | None = None
    preparation: Preparation = dataclasses.field(default_factory=Preparation)
    classes: int | None = None
    features: bool = False

    @property
    def is_procedural(self) -> bool:
        """True if it is the model for which clips with labels can be drawn."""
        return self.checkpoint is None and self.model in (None, DEFAULT_MODEL)

    def check(self) -> None:
        """Check all that can be known without loading anything.

        Raises:
            UsageError: Both a model and a checkpoint are chosen, an option lacks its checkpoint, or the family is not
                the published one.
        """
        if self.checkpoint is not None and self.model is not None:
            raise UsageError("give --model or --checkpoint, not both")
        if self.key is not None and self.checkpoint is None:
            raise UsageError("--checkpoint-key chooses a model in a file: give the file with --checkpoint")
        if self.readout is not None and self.checkpoint is None:
            raise UsageError("--readout is for checkpoints: give the file with --checkpoint")
        if self.classes is not None and self.checkpoint is None:
            raise UsageError("--classes keeps the first classes of a checkpoint: give the file with --checkpoint")
        if self.published is not None and self.family not in (None, self.published.family):
            raise UsageError(f"{self.published.name} is a {self.published.family}, not a {self.family}")

    def check_file(self) -> None:
        """Check that the checkpoint is there and may be one, without reading it whole.

        Raises:
            CheckpointError: It is not; the text says what it is instead.
            MissingDependencyError: It has to be fetched, and the hub's client is not installed.
        """
        if isinstance(self.checkpoint, Address):
            zoo.check(self.checkpoint)
        elif self.checkpoint is not None:
            from vmp_edge.models import checkpoint_file

            checkpoint_file.check(self.checkpoint)

    def file(self) -> Path:
        """Return the checkpoint's file, which is fetched first if it lies on the hub.

        Raises:
            HubError: It cannot be fetched.
        """
        if not isinstance(self.checkpoint, Address):
            assert self.checkpoint is not None
            return self.checkpoint
        note(f"vmp-edge: {self.checkpoint} is fetched, unless it is in the cache")
        return zoo.fetch(self.checkpoint)


def choose(
    model: str | None,
    checkpoint: str | Path | None,
    *,
    family: str | None = None,
    frames: int | None = None,
    image_size: int | None = None,
    labels: Path | None = None,
    key: str | None = None,
    readout: str | None = None,
    preparation: Preparation | None = None,
    classes: int | None = None,
    features: bool = False,
) -> Choice:
    """Make a choice from what a user asks for.

    Args:
        model: One of our models, a preset, or a published model, by its name.
        checkpoint: A file, or the address of one on the hub (``hf://OWNER/NAME/FILE``).
        family, frames, image_size, key, readout, preparation, classes, features: See `Choice`.
        labels: A file of labels, or the name of a data set.

    Raises:
        UsageError: The address or the labels are wrong, or options contradict each other.
    """
    if model is not None and checkpoint is None:
        require_known(model)
    published = zoo.find(model) if model is not None and checkpoint is None else None
    location: Path | Address | None = None
    if published is not None:
        model, location = None, Address(published.repository, published.file)
    elif checkpoint is not None:
        text = str(checkpoint)
        _require_no_address(text)
        location = Address.parse(text) if text.startswith(SCHEME) else Path(checkpoint)
        published = zoo.find_file(text.rpartition("/")[2])
    given = None if labels is None else labels_by(labels)
    how = preparation or Preparation()
    choice = Choice(
        model, location, published, family, frames, image_size, given, labels, key, readout, how, classes, features
    )
    choice.check()
    return choice


def _require_no_address(checkpoint: str) -> None:
    """Check that a checkpoint is neither the address of a page nor the name of a model.

    Raises:
        UsageError: It is; the text says how to give it.
    """
    if match := _PAGE.match(checkpoint):
        revision = "" if match["revision"] == "main" else f"@{match['revision']}"
        raise UsageError(f"--checkpoint takes files of the hub as {SCHEME}{match['name']}{revision}/{match['file']}")
    if re.match(r"\w+:/", checkpoint) and not checkpoint.startswith(SCHEME):
        raise UsageError(
            f"--checkpoint takes files, and those of the hub as {SCHEME}OWNER/NAME/FILE: download {checkpoint} first"
        )
    if checkpoint in all_names() and not Path(checkpoint).exists():
        raise UsageError(f"{checkpoint} is the name of a model: give it with --model")


@dataclass(frozen=True)
class SourceModel:
    """A source model with what its manifest says about it.

    Attributes:
        name: The model's name.
        module: The PyTorch model.
        labels: One label for each class, in the order of the logits.
        preprocessing: From frames to the model's video.
        frame_rate: Frames per second that the model was trained on, or None.
        span: Seconds that the frames of a clip came from in training, or None. With neither, it is not known.
        family: Which family the checkpoint was taken for, and why; None for a model that was made of its options.
        accuracy: What was measured on the model, as the manifest has it.
    """

    name: str
    module: VideoMamba
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None = None
    accuracy: dict[str, Any] = dataclasses.field(default_factory=dict)
    span: float | None = None
    family: FamilyEntry | None = None

    @property
    def window_rate(self) -> float | None:
        """Frames per second of a stream's window, or None."""
        return self.frame_rate if self.span is None else self.module.options.num_frames / self.span

    def cut(self, variant: Variant) -> SourceModel:
        """Return a cheaper variant of the model. Fewer frames span the same time."""
        module = variants.cut(self.module, variant)
        rate = self.frame_rate
        if rate is not None:
            rate *= module.options.num_frames / self.module.options.num_frames
        preprocessing = dataclasses.replace(self.preprocessing, image_size=module.options.image_size)
        return SourceModel(
            f"{self.name}-{variant.name}",
            module,
            self.labels,
            preprocessing,
            rate,
            span=self.span,
            family=self.family,
        )


def load(choice: Choice) -> SourceModel:
    """Load the source model that was chosen.

    Raises:
        UsageError: The model is unknown, or an option does not fit it.
        MissingDependencyError: PyTorch is not installed.
        CheckpointError: The checkpoint cannot be loaded.
    """
    from vmp_edge.models import zoo as own

    name = DEFAULT_MODEL if choice.model is None else choice.model
    if choice.checkpoint is not None:
        model = _from_checkpoint(choice)
    elif name in own.names():
        model = _own(own.load(name), name, choice)
    else:
        model = _untrained(name, choice)
    if len(model.labels) == 1:
        raise UsageError(
            f"{model.name} has a head with one output, as for regression: its value is no score of a class, and a "
            "bundle scores classes; fine-tune it for two classes or more, or give --classes 0 --features for its "
            "features alone"
        )
    return model


def _from_checkpoint(choice: Choice) -> SourceModel:
    """Load a checkpoint. A file of our own training says itself how its clips were sampled and prepared.

    The facts about a published checkpoint count for a file of its name, too.
    """
    from vmp_edge import models

    path, published = choice.file(), choice.published
    module = models.load_checkpoint(
        path,
        choice.family,
        choice.frames,
        choice.image_size,
        key=choice.key,
        readout=choice.readout or PUBLISHED,
        classes=choice.classes,
    )
    options = module.options
    if options.directions == "forward" and options.readout == "class_token":
        raise UsageError(
            f"{path}: scans in one direction, and its head reads the first token, which sees no other one: give "
            "--readout mean, and fine-tune the head for it"
        )
    if not options.num_classes:
        _explain_backbone(path, options.readout, choice)
    known = _facts(path, published, module)
    prepared = choice.preparation.preprocessing(known.preprocessing)
    rate, span = choice.preparation.spacing(known.frame_rate, known.span)
    labels, family = _labels(choice, known.labels), _family(module)
    return SourceModel(known.name, module, labels, prepared, rate, dict(known.accuracy), span, family)


def _facts(path: Path, published: Published | None, module: VideoMamba) -> TrainingFacts:
    """Return what is known of a checkpoint: what a file of our own training says, or else what was published."""
    from vmp_edge.models.training_facts import TrainingFacts

    options = module.options
    facts = TrainingFacts.read(path, options.image_size)
    if facts is not None and len(facts.labels) >= options.num_classes:
        return dataclasses.replace(facts, labels=facts.labels[: options.num_classes])
    labels = _known_labels(published, options.num_classes)
    if facts is not None:
        return dataclasses.replace(facts, labels=labels)
    name = published.name if published is not None else cleaned(path.stem)
    basis = AS_PUBLISHED_WITH_TEXTS if options.readout == "pooled_frames" else AS_PUBLISHED
    prepared = Preprocessing(options.image_size, **basis)
    return TrainingFacts(name, labels, prepared, span=published.span if published is not None else None)


def _family(module: VideoMamba) -> FamilyEntry | None:
    """Return the manifest's entry about the family of a checkpoint."""
    decision = module.family
    return None if decision is None else FamilyEntry(decision.family, cleaned(decision.reason))


def _explain_backbone(path: Path, readout: str, choice: Choice) -> None:
    """Say what a bundle without classes is for.

    Raises:
        UsageError: It is not asked to give features, and would give nothing.
    """
    if not choice.features:
        raise UsageError(
            f"{path}: is a backbone without a classifier, which recognises nothing by itself: build it with --features "
            "to enroll classes (vmp-edge enroll) and to embed videos (vmp-edge embed), or fine-tune it for your "
            "classes first"
        )
    if readout == "pooled_frames":
        use = "the feature that texts are compared with, for classes by their names (vmp-edge enroll --text)"
    else:
        use = "features, for classes by examples (vmp-edge enroll)"
    note(f"vmp-edge: {path}: has no classifier: the bundle gives {use} and for searching (vmp-edge embed)")


def _known_labels(published: Published | None, classes: int) -> tuple[str, ...]:
    """Return the labels of a published model's data, or numbers if they are not known."""
    if published is not None and published.data in LABEL_LISTS:
        labels = zoo.read_list(published.data)
        if len(labels) == classes:
            note(f"vmp-edge: labels of {LABEL_LISTS[published.data]}")
            return labels
    return tuple(f"class-{index}" for index in range(classes))


def _own(model: ZooModel, name: str, choice: Choice) -> SourceModel:
    options = model.module.options
    sizes = (choice.frames or options.num_frames, choice.image_size or options.image_size)
    if sizes != (options.num_frames, options.image_size):
        raise UsageError(f"{name} takes {options.num_frames} frames of {options.image_size} pixels and nothing else")
    if choice.preparation.says_something:
        raise UsageError(
            f"{name} says itself how its frames are sampled and prepared: leave out --span, --frame-rate, --resize, "
            "--mean and --std"
        )
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
    labels = _labels(choice, _known_labels(None, module.options.num_classes))
    prepared = choice.preparation.preprocessing(Preprocessing(module.options.image_size, **AS_PUBLISHED))
    rate, span = choice.preparation.spacing(None, None)
    return SourceModel(name, module, labels, prepared, rate, span=span)


def _labels(choice: Choice, default: Sequence[str]) -> tuple[str, ...]:
    """The chosen labels, or the default ones, of which there is one for each class."""
    if choice.labels is None:
        return tuple(default)
    if len(choice.labels) != len(default):
        raise UsageError(
            f"{choice.labels_from}: has {len(choice.labels)} labels, but the model has {len(default)} classes"
        )
    return choice.labels
