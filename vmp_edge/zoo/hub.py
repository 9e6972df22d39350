"""Fetching files from the Hugging Face hub, by its own client, with its cache and settings."""

from __future__ import annotations

import contextlib
import errno
import http.client
import importlib.util
import logging
import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingDependencyError, UsageError, VmpError
from ..files import digest
from ..installation import install_command
from ..masking import masked, without_secrets
from .resuming import resuming

SCHEME = "hf://"
_PATIENCE = 5.0  # seconds that the hub has to say whether a file has changed
_HUB = "https://huggingface.co"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)
_PART = r"[\w][\w.-]*"


class HubError(VmpError):
    """A file cannot be fetched from the hub."""


def endpoint() -> str:
    """Return the address of the hub, which HF_ENDPOINT may change.

    Raises:
        UsageError: HF_ENDPOINT is no address.
    """
    text = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB
    try:
        parts = urllib.parse.urlsplit(text)
        valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not re.search(r"\s", text)
        )
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"HF_ENDPOINT is {masked(text)!r}, which is no address; it is like {_HUB}")
    return text


@dataclass(frozen=True)
class Address:
    """A file on the hub.

    Attributes:
        repository: The repository, `OWNER/NAME`.
        file: The file's path in the repository.
        revision: A branch, a tag or a commit.
    """

    repository: str
    file: str
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address such as `hf://OpenGVLab/VideoMamba/model.pth` or `hf://OWNER/NAME@REVISION/FOLDER/FILE`.

        Raises:
            UsageError: The text has another form.
        """
        match = re.fullmatch(rf"hf://({_PART}/{_PART})(?:@([\w.-]+))?/(.+)", text)
        if match is None or any(part in ("", ".", "..") for part in match[3].split("/")):
            raise UsageError(
                f"{text!r} is no file on the hub: give hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE"
            )
        return cls(match[1], match[3], match[2] or "main")

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}{self.repository}{revision}/{self.file}"

    @property
    def page(self) -> str:
        """The address that a browser downloads the file from."""
        return f"{endpoint()}/{self.repository}/resolve/{self.revision}/{self.file}"


def copied_file(address: Address) -> Path:
    """Return the place where a file that was copied to this machine by hand is looked for first."""
    from vmp_edge.runtimes.building import cache_folder

    return cache_folder() / "checkpoints" / address.repository / address.file


def check(address: Address) -> None:
    """Check what can be known about fetching a file before it is fetched.

    Raises:
        MissingDependencyError: The file is not there, and huggingface_hub is not installed.
        UsageError: HF_ENDPOINT is no address.
    """
    endpoint()
    if not copied_file(address).is_file() and importlib.util.find_spec("huggingface_hub") is None:
        raise MissingDependencyError(_needs_client(address))


def _needs_client(address: Address) -> str:
    return f"{address} is fetched by huggingface_hub, which is not installed: {install_command('compile')}"


def fetch(address: Address) -> Path:
    """Return a file of the hub on this machine, and download it if it is not there yet.

    A file that was copied by hand to `copied_file` is taken first, without asking the hub. Otherwise the hub's client
    (huggingface_hub) looks into its cache, or downloads the file, goes on with a download that broke off or was
    stopped, and shows its progress. The client reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and HF_TOKEN from the
    environment.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        UsageError: HF_ENDPOINT is no address.
        HubError: The hub has no such file, or cannot be reached, or the download failed.
    """
    by_hand = copied_file(address)
    if by_hand.is_file():
        return by_hand
    try:
        import huggingface_hub
        from huggingface_hub import errors
        from huggingface_hub.utils import logging as client_logging
    except ImportError as error:
        raise MissingDependencyError(_needs_client(address)) from error
    if "HF_HUB_VERBOSITY" not in os.environ:
        client_logging.set_verbosity(logging.ERROR)  # it would tell each try, with tracebacks
    hub = endpoint()
    try:
        with resuming():
            return Path(
                huggingface_hub.hf_hub_download(
                    address.repository, address.file, revision=address.revision, endpoint=hub
                )
            )
    except errors.GatedRepoError as error:
        raise HubError(f"{address} asks for an agreement: accept it on its page, and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{address}: the hub has no repository {address.repository}, or only with a token (HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{address}: the repository has no revision {address.revision}") from error
    except errors.LocalEntryNotFoundError as error:  # before EntryNotFoundError, of which it is a kind
        raise HubError(f"{address} is not in the cache, and {_reason(error)}: {_remedy(address, by_hand)}") from error
    except errors.EntryNotFoundError as error:
        raise HubError(f"{address}: the repository has no file {address.file}") from error
    except Exception as error:  # also those of the client's HTTP library, which changes with its version
        raise HubError(f"{address} could not be downloaded: {_failure(error, address, by_hand)}") from error


def _failure(error: Exception, address: Address, by_hand: Path) -> str:
    """Return why a download failed, and what to do."""
    if isinstance(error, OSError) and error.errno in _DISK:
        folder = os.environ.get("HF_HOME", "~/.cache/huggingface")
        return (
            f"{error.strerror} ({folder}); make room or set HF_HOME to another folder, and run the same command again"
        )
    if _status(error) == 401:
        return "the hub asks for a token, or refuses the one that it got; set HF_TOKEN to one that may read it"
    again = "run the same command again to go on" if _status(error) is None else "try again later"
    return f"{_explained(error)}; {again}, or {_remedy(address, by_hand)}"


def version(address: Address) -> str | None:
    """Return what tells the content of a file on the hub from other contents, or None if nobody can say now.

    It is asked of the hub, unless HF_HUB_OFFLINE is set or the revision is a commit, which never changes. Where the hub
    cannot say, it is that of the file in the client's cache. Nothing is downloaded.
    """
    by_hand = copied_file(address)
    if by_hand.is_file():
        return digest(by_hand)
    try:
        import huggingface_hub
    except ImportError:
        return None
    if not _is_offline() and re.fullmatch("[0-9a-f]{40}", address.revision) is None:
        place = huggingface_hub.hf_hub_url(
            address.repository, address.file, revision=address.revision, endpoint=endpoint()
        )
        with contextlib.suppress(Exception):  # also those of the client's HTTP library, which changes with its version
            if etag := huggingface_hub.get_hf_file_metadata(place, timeout=_PATIENCE).etag:
                return etag
    cached = huggingface_hub.try_to_load_from_cache(address.repository, address.file, revision=address.revision)
    return version_of(Path(cached)) if isinstance(cached, str) else None


def version_of(path: Path) -> str:
    """Return what `version` does, for the file that `fetch` has returned."""
    blob = path.resolve()
    # The client keeps a file under the hub's own name for its content, which is the SHA-256 of a large file.
    return blob.name if path.is_symlink() and blob.parent.name == "blobs" else digest(path)


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _remedy(address: Address, by_hand: Path) -> str:
    return f"copy {masked(address.page)} to {by_hand}"


def _reason(error: Exception) -> str:
    """Return why the client did not even learn the file's size."""
    if _is_offline():
        return "HF_HUB_OFFLINE is set"
    if error.__cause__ is None:
        return "the hub cannot be reached"
    if _status(error.__cause__) is not None:
        return _explained(error.__cause__)
    return f"the hub cannot be reached ({_explained(error.__cause__)})"


def _explained(error: BaseException) -> str:
    """Return what an error of the client says, in a few words."""
    if (status := _status(error)) is not None:
        return f"{masked(endpoint())} answers {status} {http.client.responses.get(status, '')}".strip()
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    if "X-Repo-Commit" in text:
        return (
            f"{masked(endpoint())} does not answer as a hub does; check HF_ENDPOINT, and whether a login is in between"
        )
    return without_secrets(text, endpoint())


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of the response that an error is about, if it is one that says that something failed."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None
