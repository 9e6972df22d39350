"""The pixels of decoded videos, in files that the processes of a machine make together and that each of them reads.

Each machine decodes all videos, because its disk may be its own, and each of its processes a share of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vmp_edge.errors import UsageError
from vmp_edge.files import make_output_folder, whole
from vmp_edge.formatting import size as size_text

from ..clipset import Entry
from ..decoding import Clip, Progress, Skipped, in_workers
from . import parallel
from .parallel import Part


@dataclass(frozen=True)
class PixelFiles:
    """A machine's files. Each part of them has every so many of the videos, and a list of what it has.

    Attributes:
        folder: Where they lie. Other machines may have theirs in it, too.
        name: Beginning of their names.
        parts: Number of parts.
    """

    folder: Path
    name: str
    parts: int

    def decode(
        self, job: Callable[[Entry], Clip], videos: Sequence[Entry], what: str, progress: Progress, workers: int | None
    ) -> None:
        """Decode this process's share of the videos; there are as many parts as this machine has processes.

        Args:
            job: See `in_workers`. It gives uint8 arrays.
            videos: All videos.
            what: What a video is called at the progress bar: ``clip``.
            progress: Makes a progress bar, like `tqdm.tqdm`.
            workers: See `in_workers`.

        Raises:
            UsageError: The folder cannot be made, or the disk is full.
        """
        own = parallel.on_this_machine()
        chosen = own.share(videos)
        make_output_folder(self.folder)
        with closing(in_workers(job, chosen, parallel.divided_workers(workers))) as results:
            self._write(own, progress(results, total=len(chosen), desc=f"decoding the {what}s", unit=what))

    def read(self, videos: Sequence[Entry]) -> list[Clip | Skipped]:
        """Open what was decoded of all videos: arrays that lie in the files, or why a video cannot be used."""
        found: list[Clip | Skipped] = [Skipped(entry.path, "") for entry in videos]
        for index in range(self.parts):
            part = Part(index, self.parts)
            found[index :: self.parts] = self._read(part, part.share(videos))
        return found

    def remove(self) -> None:
        """Remove the files, also unfinished ones. Processes that have opened them go on reading them."""
        for path in self.folder.glob(f"*{self.name}-*-of-*"):
            path.unlink(missing_ok=True)

    def _write(self, part: Part, results: Iterable[tuple[Entry, Clip | Skipped]]) -> None:
        contents: list[tuple[int, ...] | str] = []
        needed = 0
        try:
            with whole(self._path(part, "bin")) as place, place.open("wb") as file:
                for _, result in results:
                    if isinstance(result, Skipped):
                        contents.append(result.reason)
                        continue
                    contents.append(result.shape)
                    needed = result.nbytes
                    file.write(np.ascontiguousarray(result).data)
            with whole(self._path(part, "json")) as place:
                place.write_text(json.dumps(contents), encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{self.folder}: the decoded videos do not fit ({error.strerror}); one takes {size_text(needed)}: free "
                "some space, or give a smaller --image-size or a longer --span"
            ) from error

    def _read(self, part: Part, videos: Sequence[Entry]) -> list[Clip | Skipped]:
        path = self._path(part, "bin")
        contents = json.loads(self._path(part, "json").read_text(encoding="utf-8"))
        pixels = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        found: list[Clip | Skipped] = []
        begin = 0
        for entry, content in zip(videos, contents, strict=True):
            if isinstance(content, str):
                found.append(Skipped(entry.path, content))
                continue
            end = begin + int(np.prod(content))
            found.append(pixels[begin:end].reshape(content))
            begin = end
        return found

    def _path(self, part: Part, suffix: str) -> Path:
        return self.folder / f"{self.name}-{part.index}-of-{part.count}.{suffix}"
