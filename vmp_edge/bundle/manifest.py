"""A bundle's manifest: its fields, reading it strictly from YAML, and writing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import BundleError, UsageError
from ..names import forbidden, shown, unfit_labels
from ..preprocessing import LARGEST_IMAGE, Preprocessing
from . import language
from .dumping import dump
from .entry import Entry
from .formats import FORMAT_VERSION, WITH_EMBEDDING, WITH_SAMPLING, WITH_STATES
from .optional import FamilyEntry, read_gpu
from .sampling import MOST_FRAMES, read_sampling
from .states import check_states, read_states, state_size

MANIFEST_NAME = "manifest.yaml"
VARIANTS_FOLDER = "variants"
MAX_MANIFEST_BYTES = 4 << 20  # thousands of labels fit; a huge file that is no manifest is not parsed
MOST_PIXELS = 1 << 25  # of all frames together: 400 MB as the model's input
MOST_THREADS = 1024
MOST_FEATURES = 1 << 16
_LONGEST_FILE_NAME = 120


def is_plain_name(name: object) -> bool:
    """Return whether a name is that of a file directly in a folder: no separators, no `..`, not hidden.

    Its characters are ASCII, which no file system normalises, and no blank is at its end, which Windows would drop.
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST_FILE_NAME
        and all(" " <= char <= "~" for char in name)
        and not set(name) & set("/\\:")
        and name[0] not in ". "
        and name[-1] not in ". "
    )


def check_threads(threads: int | None, name: str = "threads") -> None:
    """Check a number of threads that a user gives.

    Raises:
        UsageError: It is not a whole number from 1 to `MOST_THREADS`.
    """
    if threads is None:
        return
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"{name} is {threads!r:.40}; it must be at least 1 and at most {MOST_THREADS}")


@dataclass(frozen=True)
class FileEntry:
    """The expected size of a bundle's file in bytes, and its SHA-256 in lower-case hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The description of a bundle, which is the content of its `manifest.yaml`.

    Args:
        name: Name of the model that was built, such as `egomotion-nano`.
        model: The source model's options.
        target: The device kind that the bundle was built for.
        engine: The engine that executes the program.
        precision: The program's precision: `fp32`, ...
        frames: T, the number of frames that the model takes.
        preprocessing: How camera frames become the video. It holds the image size.
        labels: One name per class, in the order of the logits. A model without a head has none, and features instead.
        program: Name of the file that the engine executes.
        machine: The processor architecture that the program needs, as `host_machine` gives it, or `any`.
        tools: Names and versions of the tools that built the bundle.
        parity: The largest differences from the source model, and `check`, a reference output that `verify` repeats.
        accuracy: The measured accuracy, if it was measured.
        frame_rate: Frames per second of the clips in training, or None. Streams keep this spacing as exactly as the
            camera lets them.
        span: Seconds of video from which the T frames of a clip came in training, one from each of T equal parts, or
            None. At most one of `frame_rate` and `span` is given; with neither, the bundle does not say how frames
            are sampled.
        cpu_features: CPU features beyond the architecture that the program needs, named as in Linux's /proc/cpuinfo:
            `avx2`, ...
        libraries: Libraries that the program needs on the device. `vmp-edge doctor` looks for them.
        gpu: What the program needs of a GPU: the `architectures` that it has machine code for, the version `cuda` of
            the compiler, and the `device` that it is tuned for. Empty if the program runs on the CPU.
        soc: The system on a chip that the program is compiled for, such as `SM8650`, or None if it runs on any.
        threads: Number of threads that the engine uses when the caller gives none. None leaves it to the engine.
        family: Which family the checkpoint was taken for, and why. None if the model was made of its options.
        features: C, the number of features that the program returns after the logits, in the same vector. 0 for none.
        embedding: Name of the file that makes the tokens of one frame. Only bundles of `build --per-frame` have it:
            their program takes the tokens of a window instead of its frames. None for other bundles.
        states: What the program of a causal model carries from step to step: the shape of each by its name, in the
            order in which the program takes and gives them. Other models have none.
        files: Size and hash of each file in the bundle except the manifest itself.
        variants: Cheaper variants of the model, from the dearest to the cheapest, and the facts about each. Each is a
            bundle of its own, in the folder of its name in `VARIANTS_FOLDER`.
    """

    name: str
    model: Mapping[str, Any]
    target: str
    engine: str
    precision: str
    frames: int
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    program: str
    machine: str
    tools: Mapping[str, str]
    parity: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    frame_rate: float | None = None
    span: float | None = None
    cpu_features: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    gpu: Mapping[str, Any] = field(default_factory=dict)
    soc: str | None = None
    threads: int | None = None
    family: FamilyEntry | None = None
    features: int = 0
    embedding: str | None = None
    states: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """S, the side of the square frames that the model takes, in pixels."""
        return self.preprocessing.image_size

    @property
    def window_rate(self) -> float | None:
        """Frames per second that a window takes: the frame rate, or T frames in the span. None if neither is given."""
        return self.frame_rate if self.span is None else self.frames / self.span

    @property
    def outputs(self) -> int:
        """The number of values that the program returns for a clip: the logits, and the features after them."""
        return len(self.labels) + self.features

    @property
    def tubelet(self) -> int:
        """The number of frames that a token spans."""
        return int(self.model.get("tubelet_size", 1))

    @property
    def state_size(self) -> int:
        """n, the number of values that a stream carries from step to step: all states, one after the other."""
        return state_size(self.states)

    @property
    def frame_tokens(self) -> tuple[int, int]:
        """P and C, the number of tokens of a frame (or a tubelet of frames) and the number of their channels."""
        side = self.image_size // int(self.model["patch_size"])
        return side * side, int(self.model["embed_dim"])

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain scalars, lists and dicts, in the order in which it is written."""
        video: dict[str, Any] = {"frames": self.frames, "image_size": self.image_size}
        sampling: dict[str, Any] = {}
        if self.window_rate is not None:
            spacing = {"rate": self.frame_rate} if self.span is None else {"span": self.span}
            sampling = {"sampling": {"frames": video.pop("frames"), **spacing}}
        entries: dict[str, Any] = {
            "format": self._format,
            "name": self.name,
            "model": dict(self.model),
            "target": self.target,
            "machine": self.machine,
            "engine": self.engine,
            "precision": self.precision,
            "input": video,
            **sampling,
            "preprocessing": self.preprocessing.to_manifest(),
            "labels": list(self.labels),
            "program": self.program,
            **({} if self.embedding is None else {"embedding": self.embedding}),
            **({"states": {name: list(shape) for name, shape in self.states.items()}} if self.states else {}),
            "files": {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in self.files.items()},
            "tools": {name: str(version) for name, version in self.tools.items()},
            "parity": dict(self.parity),
            "accuracy": dict(self.accuracy),
        }
        if self.cpu_features:
            entries["cpu_features"] = list(self.cpu_features)
        if self.libraries:
            entries["libraries"] = list(self.libraries)
        if self.gpu:
            entries["gpu"] = dict(self.gpu)
        if self.soc is not None:
            entries["soc"] = self.soc
        if self.threads is not None:
            entries["threads"] = self.threads
        if self.family is not None:
            entries["family"] = {"name": self.family.name, "reason": self.family.reason}
        if self.features:
            entries["features"] = self.features
        if self.variants:
            entries["variants"] = {name: dict(facts) for name, facts in self.variants.items()}
        return entries

    @property
    def _format(self) -> int:
        """The oldest version of the format that says all of the manifest."""
        if self.states:
            return WITH_STATES
        if self.window_rate is not None:
            return WITH_SAMPLING
        return 1 if self.embedding is None else WITH_EMBEDDING

    def to_yaml(self) -> str:
        """Return the text of `manifest.yaml`.

        Raises:
            yaml.YAMLError: A value is not one that the language of manifests holds.
        """
        return dump(self.to_dict())

    @classmethod
    def from_yaml(cls, text: str | bytes) -> Manifest:
        """Read the text of `manifest.yaml`. Check its version, keys and types, and that the entries fit each other.

        Raises:
            BundleError: The manifest is not valid. The message does not name the file.
        """
        tree = language.parse(text)
        manifest = cls._from_entry(Entry(tree, ""))
        _check_texts(tree, "")
        return manifest

    @classmethod
    def _from_entry(cls, entry: Entry) -> Manifest:
        version = entry.integer("format")
        if not 1 <= version <= FORMAT_VERSION:
            newer = "update vmp-edge" if version > FORMAT_VERSION else "build the bundle again"
            raise BundleError(f"has format {version}, this version of vmp-edge reads 1 to {FORMAT_VERSION}: {newer}")
        video = entry.entry("input")
        files = entry.entry("files")
        model = entry.mapping("model")
        embeds = version == WITH_EMBEDDING or (version > WITH_EMBEDDING and "embedding" in entry.values)
        manifest = cls(
            name=entry.text("name"),
            model=model,
            target=entry.text("target"),
            engine=entry.text("engine"),
            precision=entry.text("precision"),
            **read_sampling(entry, video, version),
            preprocessing=_preprocessing(entry.mapping("preprocessing"), video.integer("image_size", 1, LARGEST_IMAGE)),
            labels=_labels(entry),
            program=entry.text("program"),
            machine=entry.text("machine"),
            tools=entry.mapping("tools"),
            parity=entry.mapping("parity"),
            accuracy=entry.mapping("accuracy"),
            cpu_features=entry.texts("cpu_features") if "cpu_features" in entry.values else (),
            libraries=entry.texts("libraries") if "libraries" in entry.values else (),
            gpu=read_gpu(entry.entry("gpu")) if "gpu" in entry.values else {},
            soc=entry.text("soc") if "soc" in entry.values else None,
            threads=entry.integer("threads", 1, MOST_THREADS) if "threads" in entry.values else None,
            family=FamilyEntry.read(entry.entry("family"), model) if "family" in entry.values else None,
            features=entry.integer("features", 0, MOST_FEATURES) if "features" in entry.values else 0,
            embedding=entry.text("embedding") if embeds else None,
            states=read_states(entry, version),
            files=_files(files),
            variants=_variants(entry.entry("variants")) if "variants" in entry.values else {},
        )
        manifest._check_consistency()
        return manifest

    def _check_consistency(self) -> None:
        """Raise BundleError if an entry contradicts another one."""
        if self.program not in self.files:
            raise BundleError(f"names the program {self.program!r}, which is not among its files")
        if self.frame_rate is not None and self.span is not None:
            raise BundleError("contradicts itself: it has a frame rate and a span for the frames of a clip")
        if not self.labels and not self.features:
            raise BundleError("has neither labels nor features, one of which a model gives")
        if self.frames * self.image_size**2 > MOST_PIXELS:
            raise BundleError(
                f"needs {self.frames} frames of {self.image_size} pixels, which are more than {MOST_PIXELS} pixels"
            )
        model = Entry(dict(self.model), "model")
        for option, value in (
            ("num_classes", len(self.labels)),
            ("num_frames", self.frames),
            ("image_size", self.image_size),
            *([(self._width, self.features)] if self.features else []),
        ):
            if option in self.model and (found := model.integer(option)) != value:
                raise BundleError(f"contradicts itself: the model's {option} is {found}, elsewhere {value}")
        if ("tubelet_size" in self.model or "patch_size" in self.model) and self.frames % model.integer(
            "tubelet_size", 1, MOST_FRAMES
        ):
            raise BundleError("contradicts itself: the model's tubelet_size does not divide its frames")
        check_states(self.states, self.model, self.embedding)
        if self.embedding is not None:
            self._check_embedding(model)

    @property
    def _width(self) -> str:
        """The model's option that is the number of features: video-text models project them."""
        projects = "projection" in self.model and Entry(dict(self.model), "model").integer("projection") != 0
        return "projection" if projects else "embed_dim"

    def _check_embedding(self, model: Entry) -> None:
        if self.embedding not in self.files:
            raise BundleError(f"names the embedding {self.embedding!r}, which is not among its files")
        model.integer("tubelet_size")
        model.integer("embed_dim", 1, MOST_FEATURES)
        if self.image_size % model.integer("patch_size", 1, LARGEST_IMAGE):
            raise BundleError("contradicts itself: the model's patch_size does not divide its image_size")


def _preprocessing(entry: Mapping[str, Any], image_size: int) -> Preprocessing:
    try:
        return Preprocessing.from_manifest(entry, image_size)
    except UsageError as error:
        raise BundleError(f"has a wrong preprocessing entry: {error}") from error


def _labels(entry: Entry) -> tuple[str, ...]:
    labels = entry.labels("labels", least=0)
    if problem := unfit_labels(labels):
        raise BundleError(f"has unfit labels: {problem}")
    return labels


def _variants(entry: Entry) -> dict[str, dict[str, Any]]:
    for name in entry.values:
        if not is_plain_name(name):
            raise BundleError(f"lists the variant {name!r:.80}: only plain names are allowed")
    _check_distinct("variants", entry.values)
    for name in entry.values:
        facts = entry.entry(name)
        if "top1" in facts.values:
            facts.number("top1", 0.0, 1.0)
    return {name: entry.mapping(name) for name in entry.values}


def _files(entry: Entry) -> dict[str, FileEntry]:
    for name in entry.values:
        if not is_plain_name(name) or name.lower() == MANIFEST_NAME:
            raise BundleError(f"lists the file {name!r:.80}: only plain names inside the bundle's folder are allowed")
    _check_distinct("files", entry.values)
    return {name: _file_entry(name, entry.entry(name)) for name in entry.values}


def _file_entry(name: str, entry: Entry) -> FileEntry:
    sha256 = entry.text("sha256")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise BundleError(f"has no valid SHA-256 for {name!r}")
    return FileEntry(entry.integer("size", minimum=0), sha256)


def _check_distinct(what: str, names: Iterable[str]) -> None:
    """Check that no two names differ only in upper and lower case, which are one file on some systems."""
    folded: dict[str, str] = {}
    for name in names:
        if (other := folded.setdefault(name.lower(), name)) != name:
            raise BundleError(f"lists the {what} {other!r} and {name!r}, which are one on some devices")


def _check_texts(value: object, where: str) -> None:
    """Check the keys and texts of a whole manifest, those that this version does not know included."""
    if isinstance(value, str) and (problem := forbidden(value)):
        raise BundleError(f"has {shown(value)} for {where!r}: {problem}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_texts(item, f"{where}[{index}]")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or forbidden(key):
                raise BundleError(
                    f"has the key {key!r:.80}{' in ' + where if where else ''}, which is not a plain text"
                )
            _check_texts(item, f"{where}.{key}" if where else key)
