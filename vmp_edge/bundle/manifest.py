"""A bundle's manifest: its fields, reading it strictly from YAML, and writing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import BundleError, UsageError
from ..preprocessing import Preprocessing
from .entry import Entry

FORMAT_VERSION = 2  # the newest version that can be read; bundles without an embedding still have version 1
_WITH_EMBEDDING = 2  # for programs that take tokens: a reader that knows only version 1 must not run them on frames
MANIFEST_NAME = "manifest.yaml"
VARIANTS_FOLDER = "variants"
MAX_MANIFEST_BYTES = 4 << 20  # thousands of labels fit; a huge file that is no manifest is not parsed


def is_plain_name(name: str) -> bool:
    """Return whether a name is that of a file directly in a folder: no separators, no `..`, not hidden."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\:\0") and name.isprintable()


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
        labels: One name per class, in the order of the logits.
        program: Name of the file that the engine executes.
        machine: The processor architecture that the program needs, as `host_machine` gives it, or `any`.
        tools: Names and versions of the tools that built the bundle.
        parity: The largest differences from the source model, and `check`, a reference output that `verify` repeats.
        accuracy: The measured accuracy, if it was measured.
        frame_rate: Frames per second that the model saw in training, or None if the rate does not matter.
        cpu_features: CPU features beyond the architecture that the program needs, named as in Linux's /proc/cpuinfo:
            `avx2`, ...
        libraries: Libraries that the program needs on the device. `vmp-edge doctor` looks for them.
        gpu: What the program needs of a GPU: the `architectures` that it has machine code for, the version `cuda` of
            the compiler, and the `device` that it is tuned for. Empty if the program runs on the CPU.
        soc: The system on a chip that the program is compiled for, such as `SM8650`, or None if it runs on any.
        threads: Number of threads that the engine uses when the caller gives none. None leaves it to the engine.
        features: C, the number of features that the program returns after the logits, in the same vector. 0 for none.
        embedding: Name of the file that makes the tokens of one frame. Only bundles of `build --per-frame` have it:
            their program takes the tokens of a window instead of its frames. None for other bundles.
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
    cpu_features: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    gpu: Mapping[str, Any] = field(default_factory=dict)
    soc: str | None = None
    threads: int | None = None
    features: int = 0
    embedding: str | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def image_size(self) -> int:
        """S, the side of the square frames that the model takes, in pixels."""
        return self.preprocessing.image_size

    @property
    def outputs(self) -> int:
        """The number of values that the program returns for a clip: the logits, and the features after them."""
        return len(self.labels) + self.features

    @property
    def frame_tokens(self) -> tuple[int, int]:
        """P and C, the number of tokens of a frame (or a tubelet of frames) and the number of their channels."""
        side = self.image_size // int(self.model["patch_size"])
        return side * side, int(self.model["embed_dim"])

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain scalars, lists and dicts, in the order in which it is written."""
        video: dict[str, Any] = {"frames": self.frames, "image_size": self.image_size}
        if self.frame_rate is not None:
            video["frame_rate"] = self.frame_rate
        entries: dict[str, Any] = {
            "format": 1 if self.embedding is None else _WITH_EMBEDDING,
            "name": self.name,
            "model": dict(self.model),
            "target": self.target,
            "machine": self.machine,
            "engine": self.engine,
            "precision": self.precision,
            "input": video,
            "preprocessing": self.preprocessing.to_manifest(),
            "labels": list(self.labels),
            "program": self.program,
            **({} if self.embedding is None else {"embedding": self.embedding}),
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
        if self.features:
            entries["features"] = self.features
        if self.variants:
            entries["variants"] = {name: dict(facts) for name, facts in self.variants.items()}
        return entries

    def to_yaml(self) -> str:
        """Return the text of `manifest.yaml`.

        Raises:
            yaml.YAMLError: A value is not a plain scalar, list or dict.
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_yaml(cls, text: str | bytes) -> Manifest:
        """Read the text of `manifest.yaml`. Check its version, keys and types, and that the entries fit each other.

        Raises:
            BundleError: The manifest is not valid. The message does not name the file.
        """
        try:
            loaded = yaml.safe_load(text)  # not libyaml's CSafeLoader, which crashes on deep nesting
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise BundleError(f"is not valid YAML ({_first_line(error)})") from error
        return cls._from_entry(Entry(loaded, ""))

    @classmethod
    def _from_entry(cls, entry: Entry) -> Manifest:
        version = entry.integer("format")
        if version not in (1, _WITH_EMBEDDING):
            newer = "update vmp-edge" if version > FORMAT_VERSION else "build the bundle again"
            raise BundleError(f"has format {version}, this version of vmp-edge reads 1 to {FORMAT_VERSION}: {newer}")
        video = entry.entry("input")
        files = entry.entry("files")
        manifest = cls(
            name=entry.text("name"),
            model=entry.mapping("model"),
            target=entry.text("target"),
            engine=entry.text("engine"),
            precision=entry.text("precision"),
            frames=video.integer("frames", minimum=1),
            preprocessing=_preprocessing(entry.mapping("preprocessing"), video.integer("image_size", minimum=1)),
            labels=entry.texts("labels"),
            program=entry.text("program"),
            machine=entry.text("machine"),
            tools=entry.mapping("tools"),
            parity=entry.mapping("parity"),
            accuracy=entry.mapping("accuracy"),
            frame_rate=video.number("frame_rate") if "frame_rate" in video.values else None,
            cpu_features=entry.texts("cpu_features") if "cpu_features" in entry.values else (),
            libraries=entry.texts("libraries") if "libraries" in entry.values else (),
            gpu=_gpu(entry.entry("gpu")) if "gpu" in entry.values else {},
            soc=entry.text("soc") if "soc" in entry.values else None,
            threads=entry.integer("threads", minimum=1) if "threads" in entry.values else None,
            features=entry.integer("features", minimum=0) if "features" in entry.values else 0,
            embedding=entry.text("embedding") if version == _WITH_EMBEDDING else None,
            files={name: _file_entry(name, files.entry(name)) for name in files.values},
            variants=_variants(entry.entry("variants")) if "variants" in entry.values else {},
        )
        manifest._check_consistency()
        return manifest

    def _check_consistency(self) -> None:
        """Raise BundleError if an entry contradicts another one."""
        if self.program not in self.files:
            raise BundleError(f"names the program {self.program!r}, which is not among its files")
        for option, value in (
            ("num_classes", len(self.labels)),
            ("num_frames", self.frames),
            ("image_size", self.image_size),
            *([("embed_dim", self.features)] if self.features else []),
        ):
            if self.model.get(option, value) != value:
                raise BundleError(
                    f"contradicts itself: the model's {option} is {self.model[option]}, elsewhere {value}"
                )
        for key in self.model:
            if not isinstance(key, str):
                raise BundleError(f"has the model option {key!r}, which is not a text")
        if self.embedding is not None:
            self._check_embedding()

    def _check_embedding(self) -> None:
        if self.embedding not in self.files:
            raise BundleError(f"names the embedding {self.embedding!r}, which is not among its files")
        model = Entry(dict(self.model), "model")
        if self.frames % model.integer("tubelet_size", minimum=1):
            raise BundleError("contradicts itself: the model's tubelet_size does not divide its frames")
        model.integer("embed_dim", minimum=1)
        if self.image_size % model.integer("patch_size", minimum=1):
            raise BundleError("contradicts itself: the model's patch_size does not divide its image_size")


def _preprocessing(entry: Mapping[str, Any], image_size: int) -> Preprocessing:
    try:
        return Preprocessing.from_manifest(entry, image_size)
    except UsageError as error:
        raise BundleError(f"has a wrong preprocessing entry: {error}") from error


def _gpu(entry: Entry) -> dict[str, Any]:
    architectures = entry.values.get("architectures")
    if not isinstance(architectures, list) or not architectures or not all(type(sm) is int for sm in architectures):
        raise BundleError("needs a list of whole numbers for 'gpu.architectures'")
    return {"architectures": architectures, "cuda": entry.text("cuda"), "device": entry.text("device")}


def _variants(entry: Entry) -> dict[str, dict[str, Any]]:
    for name in entry.values:
        if not isinstance(name, str) or not is_plain_name(name):
            raise BundleError(f"lists the variant {name!r}: only plain names are allowed")
    return {name: entry.mapping(name) for name in entry.values}


def _file_entry(name: object, entry: Entry) -> FileEntry:
    if not isinstance(name, str) or not is_plain_name(name) or name == MANIFEST_NAME:
        raise BundleError(f"lists the file {name!r}: only plain names inside the bundle's folder are allowed")
    sha256 = entry.text("sha256")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise BundleError(f"has no valid SHA-256 for {name!r}")
    return FileEntry(entry.integer("size", minimum=0), sha256)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
