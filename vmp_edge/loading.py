"""`load`: a recogniser from a bundle, or from a model's name or a checkpoint, which are built once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from . import zoo
from .bundle.cache import Shelf
from .bundle.manifest import MANIFEST_NAME
from .bundle.reading import Bundle
from .errors import MissingDependencyError, UsageError
from .files import digest
from .gallery import Gallery
from .installation import install_command
from .machine import host_machine
from .models.own import FOLDER as OWN
from .progress import Bar, note
from .recognizer import Recognizer, open_bundle
from .zoo import Address, hub
from .zoo.names import all_names, similar

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_TARGET = "host"
SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".safetensors"})  # of files that are taken for checkpoints


class BuildOptions(TypedDict, total=False):
    """The options of `vmp-edge build` that `load` takes. `vmp_edge.compile.request.Request` describes them."""

    checkpoint_key: str | None
    family: str | None
    readout: str | None
    classes: int | None
    frames: int | None
    image_size: int | None
    labels: str | os.PathLike[str] | None
    span: float | None
    frame_rate: float | None
    resize: str | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    engine: str | None
    precision: str | None
    device: str | None
    jetpack: str | None
    calibrate: str | os.PathLike[str] | None
    calibration_clips: int | None
    finetune: int | None
    evaluate: str | os.PathLike[str] | None
    max_drop: float | None
    parity_clips: int | None
    features: bool
    variants: Sequence[str] | None
    per_frame: bool


_PATHS = ("labels", "calibrate", "evaluate")


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    gallery: Gallery | str | os.PathLike[str] | None = None,
    threshold: float | None = None,
    *,
    target: str | None = None,
    **options: Unpack[BuildOptions],
) -> Recognizer:
    """Load a bundle into its engine. For a model's name or a checkpoint, the bundle is built at the first use.

    What was built is kept in `$VMP_EDGE_CACHE`, or `~/.cache/vmp-edge`, and taken from there until this package's
    version or the checkpoint's content changes. Progress is written to standard error. Of several processes, one
    builds, and the others wait for it.

    Args:
        path: A bundle's folder. Or what to build a bundle from: a name that `vmp-edge models` lists, a checkpoint's
            file, or the address of one on the hub (`hf://OWNER/NAME/FILE`).
        threads: Number of threads that the engine uses. None takes the manifest's number, or leaves it to the engine.
        gallery: Classes to recognise beside the trained ones, or the path of their file. The bundle must have features.
        threshold: The least similarity for the gallery's classes, as for `Matcher`.
        target: The target to build for, which this machine must be. None takes `host`.
        options: Options of the build, such as `labels="labels.txt"`, `precision="int8"` or `features=True`.

    Raises:
        UsageError: Nothing has this name, an option does not fit, or the threshold or the threads are out of range.
        BundleError: The bundle is missing, damaged, or not for this version, machine or engine.
        GalleryError: The gallery is missing, damaged, or not for this bundle.
        MissingDependencyError: A package that the engine or the build needs is not installed.
        VmpError: The checkpoint cannot be fetched or loaded, or the build failed.
    """
    if unknown := set(options) - set(BuildOptions.__annotations__):
        raise TypeError(f"load() got an unexpected keyword argument {min(unknown)!r}")
    wanted = _wanted(path, target, options)
    if wanted is None:
        return open_bundle(_bundle(path, target, options), threads, gallery, threshold)
    with wanted.shelf().bundle(wanted.version(), wanted.fetch, wanted.build) as bundle:
        return open_bundle(bundle, threads, gallery, threshold)


def _bundle(path: str | os.PathLike[str], target: str | None, options: BuildOptions) -> Bundle:
    """Open a bundle that was built before, for which options of a build come too late."""
    bundle = Bundle.open(path)
    if options or target not in (None, bundle.manifest.target):
        raise UsageError(
            f"{path} is a bundle for {bundle.manifest.target} already: a target and options of a build are for names "
            "and checkpoints"
        )
    return bundle


def _wanted(path: str | os.PathLike[str], target: str | None, options: BuildOptions) -> _Wanted | None:
    """Return what is to be built, or None for the path of a bundle.

    Raises:
        UsageError: There is a target or an option of a build, but nothing to build.
    """
    text, place = os.fspath(path), Path(path)
    to_build = target is not None or bool(options)
    chosen = {key: value for key, value in options.items() if value is not None}
    if text.startswith(hub.SCHEME):
        return _Wanted(text, Address.parse(text), target or DEFAULT_TARGET, chosen)
    if (place / MANIFEST_NAME).exists():
        return None
    if isinstance(path, str):
        if (published := zoo.find(text)) is not None:
            if not published.classes:  # it gives nothing but features
                chosen.setdefault("features", True)
            return _Wanted(text, Address(published.repository, published.file), target or DEFAULT_TARGET, chosen, text)
        if text in all_names():
            return _Wanted(text, None, target or DEFAULT_TARGET, chosen, text)
    if place.exists() and (to_build or (place.is_file() and place.suffix.lower() in SUFFIXES)):
        return _Wanted(text, place.absolute(), target or DEFAULT_TARGET, chosen)
    if place.exists() or (not to_build and os.sep in text):
        return None
    raise UsageError(f"there is no model, bundle or checkpoint {text!r}{_nearest(text)}; `vmp-edge models` lists names")


def _nearest(text: str) -> str:
    meant = similar(text)
    return f": is it {meant[0]}?" if meant else ""


@dataclass(frozen=True)
class _Wanted:
    """A bundle that is wanted of a model or a checkpoint.

    Attributes:
        text: What the user has written.
        checkpoint: The checkpoint, or None for a model that comes with the package.
        target: The target.
        options: The options of the build that are not the defaults.
        model: The model's name, or None if the checkpoint itself was given.
    """

    text: str
    checkpoint: Path | Address | None
    target: str
    options: dict[str, Any]
    model: str | None = None

    def shelf(self) -> Shelf:
        """Return the bundle's place in the cache. It is another one for each version of this package."""
        from vmp_edge.runtimes.building import cache_folder

        from . import __version__

        paths = {key: str(Path(value).absolute()) for key, value in self.options.items() if key in _PATHS}
        facts = [self.model or str(self.checkpoint), self.target, host_machine(), {**self.options, **paths}]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=list).encode()).hexdigest()[:12]
        name = re.sub(r"[^\w.-]+", "-", self.model or Path(self.text).stem, flags=re.ASCII)[:60].strip(".-")
        return Shelf(cache_folder() / "bundles" / __version__ / f"{name}-{self.target}-{key}", self.text)

    def version(self) -> str | None:
        """Return the version of what the bundle is built from, or None if nobody can say now."""
        if isinstance(self.checkpoint, Address):
            known = hub.version(self.checkpoint)
            return None if known is None else self._with_labels(known)
        return self._with_labels(self._content())

    def fetch(self) -> str:
        """Check all that a build needs, fetch the checkpoint from the hub, and return the version."""
        self._check()
        if not isinstance(self.checkpoint, Address):
            return self._with_labels(self._content())
        zoo.check(self.checkpoint)
        return self._with_labels(hub.version_of(zoo.fetch(self.checkpoint)))

    def build(self, folder: Path) -> None:
        """Build the bundle."""
        from vmp_edge.compile.pipeline import build

        note(
            f"vmp-edge: {self.text} is built for {self.target} once, and kept in {folder.parent} "
            "(VMP_EDGE_CACHE names another place)"
        )
        build(self._request(folder), Bar)

    def _check(self) -> None:
        """Check what can be known about the build before anything is fetched.

        Raises:
            MissingDependencyError: PyTorch, or what the target needs, is not installed.
            UsageError: This machine cannot run the target's bundles, or an option does not fit.
        """
        given = f"--model {self.model}" if self.model else f"--checkpoint {self.text}"
        elsewhere = f"`vmp-edge build --target {self.target} {given}`"
        from vmp_edge.compile.needs import has_package

        if not has_package("torch"):
            raise MissingDependencyError(
                f"{self.text} has to be built first, which needs PyTorch: {install_command('compile')}; or run "
                f"{elsewhere} on a workstation, and load the folder that it writes"
            )
        from vmp_edge.compile import target as targets

        target = targets.load(self.target)
        if target.delegate is not None or not targets.runs_here(target):
            raise UsageError(
                f"this machine cannot run bundles for {self.target}: run {elsewhere}, and load the folder that it "
                "writes on the device"
            )
        self._request(self.shelf().folder / "bundle").checked()

    def _request(self, output: Path) -> Any:
        from vmp_edge.compile.request import Request

        paths = {key: Path(value) for key, value in self.options.items() if key in _PATHS}
        checkpoint = None if self.model is not None else self.checkpoint
        given = str(checkpoint) if isinstance(checkpoint, Address) else checkpoint
        return Request(self.target, self.model, given, output=output, **{**self.options, **paths})

    def _content(self) -> str:
        """Return the version of a checkpoint on this machine, or of a model that comes with the package."""
        if self.checkpoint is None:
            weights = OWN / f"{self.model}.pth"
            return digest(weights) if weights.is_file() else "random"
        assert isinstance(self.checkpoint, Path)
        try:
            if self.checkpoint.is_file():
                return digest(self.checkpoint)
            files = sorted(path for path in self.checkpoint.rglob("*") if path.is_file())
            states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        except OSError as error:
            raise UsageError(f"{self.text} cannot be read: {error.strerror}") from error
        return hashlib.sha256(repr(states).encode()).hexdigest()

    def _with_labels(self, version: str) -> str:
        """Return a name for a version of the checkpoint together with its file of labels, if it has one."""
        labels = self.options.get("labels")
        if labels is not None and Path(labels).is_file():
            version += digest(Path(labels))
        return hashlib.sha256(version.encode()).hexdigest()[:16]
