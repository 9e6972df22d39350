"""A bundle's manifest: what its fields are, reading it strictly, writing it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import BundleError, UsageError
from ..preprocessing import Preprocessing

FORMAT_VERSION = 2  # the newest that is read; 1 is what bundles without an embedding have
_WITH_EMBEDDING = 2  # of bundles whose program takes tokens: what reads 1 alone must not run it on frames
MANIFEST_NAME = "manifest.yaml"
VARIANTS_FOLDER = "variants"
MAX_MANIFEST_BYTES = 4 << 20  # thousands of labels fit; a mistaken multi-gigabyte file does not get parsed


def is_plain_name(name: str) -> bool:
    """Whether `name` names something directly inside a folder: no separators, no `..`, nothing hidden."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\:\0") and name.isprintable()


@dataclass(frozen=True)
class FileEntry:
    """What a bundle's file must be: size in bytes and SHA-256 in lower-case hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Args:
        name: What was built, `egomotion-nano` say.
        model: The source model's options.
        target: The device kind that it was built for.
        engine: What executes it.
        precision: `fp32`, ...
        frames: T, how many frames the model takes.
        preprocessing: From camera frames to the video; holds the image size.
        labels: One name per class, in the order of the logits.
        program: The file that the engine executes.
        machine: The processor architecture that it needs, as `host_machine` gives it, or `any`.
        tools: Name and version of what built it.
        parity: Largest differences from the source model, and `check`, a reference output that `verify` repeats.
        accuracy: What was measured, if it was.
        frame_rate: Frames per second at which the model saw its frames in training; None if it doesn't matter.
        cpu_features: What it needs of a CPU beyond the architecture, as Linux names it in /proc/cpuinfo: `avx2`, ...
        libraries: Of which libraries of the device its program has need, for `vmp-edge doctor` to look for.
        gpu: What it needs of a GPU: `architectures` that it has machine code for, `cuda` of the compiler, and the
            `device` that it is tuned for; empty where the CPU does the work.
        soc: The system on a chip that its program is compiled for, `SM8650` say; None where it runs on all.
        threads: How many threads the engine uses when the caller does not say; None leaves it to the engine.
        features: C, how many features the program gives after the logits, in the same vector; 0 for none.
        embedding: The file that makes tokens of one frame, of a bundle whose program takes the tokens of a window
            instead of its frames (`build --per-frame`); None of others.
        files: Size and hash of each file in the bundle but the manifest itself.
        variants: Cheaper variants of the model, from the dearest to the cheapest, and what is known of each; each is a
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
        """S, the side of the square that the model takes, in pixels."""
        return self.preprocessing.image_size

    @property
    def outputs(self) -> int:
        """How many numbers the program gives for a clip: the logits, and the features after them."""
        return len(self.labels) + self.features

    @property
    def frame_tokens(self) -> tuple[int, int]:
        """P and C, tokens of a frame (or a tubelet of frames) and their channels."""
        side = self.image_size // int(self.model["patch_size"])
        return side * side, int(self.model["embed_dim"])

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain scalars, lists and dicts, in the order in which it is written."""
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
        """The text of `manifest.yaml`.

        Raises:
            yaml.YAMLError: A value is not a plain scalar, list or dict.
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_yaml(cls, text: str | bytes) -> Manifest:
        """Reads `manifest.yaml`, checking version, keys, types and that the entries fit each other.

        Raises:
            BundleError: What is wrong with it, in one line that does not name the file.
        """
        try:
            loaded = yaml.safe_load(text)  # not libyaml's CSafeLoader: deep nesting crashes it
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise BundleError(f"is not valid YAML ({_first_line(error)})") from error
        return cls._from_entry(_Entry(loaded, ""))

    @classmethod
    def _from_entry(cls, entry: _Entry) -> Manifest:
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
        model = _Entry(dict(self.model), "model")
        if self.frames % model.integer("tubelet_size", minimum=1):
            raise BundleError("contradicts itself: the model's tubelet_size does not divide its frames")
        model.integer("embed_dim", minimum=1)
        if self.image_size % model.integer("patch_size", minimum=1):
            raise BundleError("contradicts itself: the model's patch_size does not divide its image_size")


class _Entry:
    """A mapping being read: each getter checks presence and type, and says where it was when it fails."""

    def __init__(self, values: object, where: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            raise BundleError(f"needs a mapping{' for ' + where if where else ''}, found {_kind(values)}")
        self.values: dict[Any, Any] = values

    def _get(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        name = f"{self.where}.{key}" if self.where else key
        if key not in self.values:
            raise BundleError(f"lacks {name!r}")
        value = self.values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BundleError(f"needs {expected} for {name!r}, found {_kind(value)}")
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, str, "a text")
        if not value:
            raise BundleError(f"needs a text for {key!r}, found an empty one")
        return value

    def integer(self, key: str, minimum: int | None = None) -> int:
        value: int = self._get(key, int, "a whole number")
        if minimum is not None and value < minimum:
            raise BundleError(f"needs at least {minimum} for {key!r}, found {value}")
        return value

    def number(self, key: str) -> float:
        value = float(self._get(key, (int, float), "a number"))
        if not math.isfinite(value) or value <= 0:
            raise BundleError(f"needs a positive number for {key!r}, found {value}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = self._get(key, dict, "a mapping")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._get(key, list, "a list of texts")
        for value in values:
            if not isinstance(value, str):
                raise BundleError(f"needs texts in {key!r}, found {_kind(value)} (put it in quotes)")
        if not values:
            raise BundleError(f"needs at least one entry in {key!r}")
        return tuple(values)

    def entry(self, key: str) -> _Entry:
        return _Entry(self._get(key, dict, "a mapping"), f"{self.where}.{key}" if self.where else key)


def _preprocessing(entry: Mapping[str, Any], image_size: int) -> Preprocessing:
    try:
        return Preprocessing.from_manifest(entry, image_size)
    except UsageError as error:
        raise BundleError(f"has a wrong preprocessing entry: {error}") from error


def _gpu(entry: _Entry) -> dict[str, Any]:
    architectures = entry.values.get("architectures")
    if not isinstance(architectures, list) or not architectures or not all(type(sm) is int for sm in architectures):
        raise BundleError("needs a list of whole numbers for 'gpu.architectures'")
    return {"architectures": architectures, "cuda": entry.text("cuda"), "device": entry.text("device")}


def _variants(entry: _Entry) -> dict[str, dict[str, Any]]:
    for name in entry.values:
        if not isinstance(name, str) or not is_plain_name(name):
            raise BundleError(f"lists the variant {name!r}: only plain names are allowed")
    return {name: entry.mapping(name) for name in entry.values}


def _file_entry(name: object, entry: _Entry) -> FileEntry:
    if not isinstance(name, str) or not is_plain_name(name) or name == MANIFEST_NAME:
        raise BundleError(f"lists the file {name!r}: only plain names inside the bundle's folder are allowed")
    sha256 = entry.text("sha256")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise BundleError(f"has no valid SHA-256 for {name!r}")
    return FileEntry(entry.integer("size", minimum=0), sha256)


def _kind(value: object) -> str:
    return f"{type(value).__name__} {value!r:.40}" if value is not None else "nothing"


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
