"""The model that a training starts from: one of ours, a published one, a checkpoint, or random weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vmp_edge import zoo
from vmp_edge.errors import UsageError
from vmp_edge.models import PRESETS, VideoMamba, create, efficientnet, load_checkpoint, own
from vmp_edge.models.options import STEM_STRIDE
from vmp_edge.models.training_facts import TrainingFacts
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.progress import note
from vmp_edge.zoo import Address
from vmp_edge.zoo.hub import SCHEME

from . import projection
from .footage import Footage

DEFAULT = "egomotion-nano"
STEM = efficientnet.NAME  # an image network as the stem of blocks that do nothing yet
SCRATCH = "scratch"  # the architecture of `DEFAULT` with random weights
RESULT = "model.pth"  # in the folder of an earlier training, which can be given in its file's place
# Of our own models, which are trained on small pictures of 8 frames: actions of people need more pixels.
_OWN_FRAMES, _OWN_SIZE = 8, 112
# Blocks over the maps of an image network: few, as each learns from nothing but the user's clips.
_OVER_STEM: dict[str, Any] = {
    **{"stem": "efficientnet_lite0", "patch_size": STEM_STRIDE, "tubelet_size": 1},
    **{"embed_dim": 192, "depth": 2, "d_state": 8, "image_size": 160, "num_frames": 8, "readout": "mean"},
}


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        name: Its name or file, for messages.
        model: The model; its head is for other classes, or it has none.
        preprocessing: How its frames were prepared.
        span: Seconds that a clip spanned in its training, or None.
        is_trained: Whether its weights are worth anything.
        projects: Whether the projection of its stem's maps is chosen by the clips, see `projection`.
    """

    name: str
    model: VideoMamba
    preprocessing: Preprocessing
    span: float | None = None
    is_trained: bool = True
    projects: bool = False

    def suited_to(self, footage: Footage) -> Start:
        """Return the model with what is chosen by the clips to train on, which need no labels for it.

        Args:
            footage: These clips.
        """
        if not self.projects:
            return self
        model = copy.deepcopy(self.model)
        projection.choose(model, footage)
        return dataclasses.replace(self, model=model, projects=False)

    def with_classes(self, count: int, seed: int) -> VideoMamba:
        """Return a copy of the model with a new head.

        Args:
            count: Number of classes.
            seed: Seed of the head's weights.
        """
        # The first token of a model that scans forward sees no other one.
        readout = "mean" if self.model.options.directions == "forward" else self.model.options.readout
        options = dataclasses.replace(self.model.options, num_classes=count, readout=readout)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = VideoMamba(options)
        old = {name: value for name, value in self.model.state_dict().items() if not name.startswith("head.")}
        head = {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
        model.load_state_dict(copy.deepcopy({**old, **head}))
        return model


def load(
    init: str = DEFAULT,
    frames: int | None = None,
    image_size: int | None = None,
    widths: dict[str, int] | None = None,
    seed: int = 0,
) -> Start:
    """Load a model to start from.

    Args:
        init: The name of one of our models, of a published model or of a preset (random weights), ``scratch``,
            ``efficientnet-lite0`` or a file of its weights, a checkpoint, the folder of an earlier training, or
            ``hf://OWNER/NAME/FILE``.
        frames: T; None keeps the model's, or takes 8 for our own.
        image_size: S; None keeps the model's, or takes 112 for our own.
        widths: ``embed_dim`` and ``depth`` of a model with random weights, or of the blocks over an image network.
        seed: Seed of random weights.

    Raises:
        UsageError: There is no such model or file, or it cannot have one of the sizes.
        CheckpointError: The checkpoint cannot be loaded.
        HubError: It cannot be fetched.
    """
    start = _load(init, frames, image_size, widths or {}, seed)
    if start.model.options.causal:
        raise UsageError(f"--init {init}: is a causal model, which cannot be trained on clips yet")
    return start


def _load(init: str, frames: int | None, image_size: int | None, widths: dict[str, int], seed: int) -> Start:
    if init == SCRATCH or (init in PRESETS and init not in own.names()):
        return _random(init, frames, image_size, widths, seed)
    weights = _stem_weights(init)
    if weights is not None:
        return _over_stem(init, weights, frames, image_size, widths, seed)
    if widths:
        raise UsageError(f"{init} has its own {' and '.join(widths)}: leave them out, or give --init {SCRATCH}")
    if init in own.names():
        path, frames, image_size = own.FOLDER / f"{init}.pth", frames or _OWN_FRAMES, image_size or _OWN_SIZE
    else:
        path = _file(init)
    model = load_checkpoint(path, num_frames=frames, image_size=image_size)
    size = model.options.image_size
    published = zoo.find(init) or zoo.find_file(path.name)
    if published is not None or (facts := TrainingFacts.read(path, size)) is None:
        from vmp_edge.compile.source import AS_PUBLISHED  # which imports modules of calibration

        return Start(init, model, Preprocessing(size, **AS_PUBLISHED), published.span if published else None)
    return Start(init, model, facts.preprocessing, facts.span)


def _random(name: str, frames: int | None, image_size: int | None, widths: dict[str, int], seed: int) -> Start:
    architecture = DEFAULT if name == SCRATCH else name
    sizes: dict[str, int | None] = {"num_frames": frames, "image_size": image_size}
    if architecture in own.names():
        sizes = {"num_frames": frames or _OWN_FRAMES, "image_size": image_size or _OWN_SIZE}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        given = {key: value for key, value in sizes.items() if value is not None}
        model = create(architecture, num_classes=2, **given, **widths)
    if name != SCRATCH:
        note(f"vmp-edge: {name} has no weights here and starts from random ones, which takes many clips and epochs")
    return Start(name, model, Preprocessing(model.options.image_size), is_trained=False)


def _stem_weights(init: str) -> Mapping[str, torch.Tensor] | None:
    """Return the weights of the image network that is meant, or None if something else is."""
    path = efficientnet.package_file() if init == STEM else Path(init)
    if not path.is_file():
        return None
    return efficientnet.tensors_in(path)


def _over_stem(
    name: str,
    weights: Mapping[str, torch.Tensor],
    frames: int | None,
    image_size: int | None,
    widths: dict[str, int],
    seed: int,
) -> Start:
    """Return an image network with blocks over its maps that change nothing as long as they are not trained."""
    sizes = {"num_frames": frames, "image_size": image_size}
    given = {key: value for key, value in sizes.items() if value is not None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create(DEFAULT, **{**_OVER_STEM, **given, **widths, "num_classes": 2})
    assert model.patch_embed.stem is not None
    model.patch_embed.stem.load(weights, name)
    torch.nn.init.zeros_(model.pos_embed)
    for block in model.blocks():
        torch.nn.init.zeros_(block.mixer.out_proj.weight)
    preprocessing = Preprocessing(model.options.image_size, mean=efficientnet.MEAN, std=efficientnet.STD)
    return Start(name, model, preprocessing, projects=True)


def _file(init: str) -> Path:
    """Return the file of a checkpoint, which is fetched first if it lies on the hub."""
    published = zoo.find(init)
    address = Address(published.repository, published.file) if published is not None else None
    if init.startswith(SCHEME):
        address = Address.parse(init)
    if address is not None:
        zoo.check(address)
        note(f"vmp-edge: {address} is fetched, unless it is in the cache")
        return zoo.fetch(address)
    path = Path(init)
    if (path / RESULT).is_file():
        return path / RESULT
    if not path.exists():
        raise UsageError(
            f"--init {init}: no such file, and no model of this name: give {', '.join(own.names())}, {STEM}, a name "
            f"that `vmp-edge models` lists, {SCRATCH}, or a checkpoint's file"
        )
    return path
