"""What those commands do that share their videos with other processes, under torchrun or SLURM."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import VmpError
from ..formatting import quantity
from ..progress import among_others
from .output import message, print_json

if TYPE_CHECKING:
    from vmp_edge.calibration.clipset import ClipSet
    from vmp_edge.calibration.sharing import Share, SharePendingError


@contextlib.contextmanager
def sharing(share: Share) -> Iterator[None]:
    """Say of progress and failures which of several processes they are of."""
    if share.is_whole:
        yield
        return
    with among_others(str(share)):
        try:
            yield
        except VmpError as error:
            error.args = (f"{share}: {error}", *error.args[1:])
            raise


def announce(share: Share, clips: ClipSet) -> None:
    """Say how much of the work is this process's, if others have a part of it."""
    if not share.is_whole:
        message(f"{share}: {quantity(len(share.of(clips.entries)), 'video')} of {len(clips)}")


def wait_for_others(share: Share, pending: SharePendingError, facts: dict[str, Any], as_json: bool) -> int:
    """Say that this process is done while others are not. It waits for nobody: return the exit code."""
    message(str(pending))
    if as_json:
        print_json({**facts, "share": share.rank, "shares": share.count})
    return 0
