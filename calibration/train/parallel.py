"""Training by several processes that `torchrun` starts, on one machine or on several.

Each process works on its part of every batch, and the gradients are averaged, so that the weights are those that one
process would reach.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
from torch import distributed

from vmp_edge.errors import UsageError, VmpError

from ..sharing import Share

Item = TypeVar("Item")

_PATIENCE = timedelta(days=1)  # for which processes wait while one of them decodes or measures


@dataclass(frozen=True)
class Part:
    """A process's part of the work.

    Attributes:
        index: Number of the process, from 0.
        count: Number of processes.
    """

    index: int = 0
    count: int = 1

    def of(self, items: int) -> slice:
        """Return the process's part of a number of items that the processes divide evenly.

        Raises:
            UsageError: They cannot be divided evenly.
        """
        if items % self.count:
            raise UsageError(f"a batch of {items} clips cannot be divided evenly among {self.count} processes")
        size = items // self.count
        return slice(self.index * size, (self.index + 1) * size)

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the process's share of items that need not be divided evenly."""
        return items[self.index :: self.count]


@contextmanager
def processes() -> Iterator[Part]:
    """Join the processes that `torchrun` started, and leave them at the end; alone without `torchrun`.

    Processes with a GPU each talk by NCCL, others by Gloo.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Part()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield current()
    finally:
        distributed.destroy_process_group()


def current() -> Part:
    """Return this process's part of every batch."""
    if not distributed.is_available() or not distributed.is_initialized():
        return Part()
    return Part(distributed.get_rank(), distributed.get_world_size())


def on_this_machine() -> Part:
    """Return this process's part of what each machine has to do for itself, such as decoding clips to its own disk."""
    if current().count == 1:
        return Part()
    return Part(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))


def first_on_this_machine() -> int:
    """Return the number that the first process of this machine has among all processes."""
    return current().index - on_this_machine().index


def divided_workers(chosen: int | None) -> int | None:
    """Return how many worker processes each process of this machine may have, see `Share.workers`."""
    return Share(neighbours=on_this_machine().count).workers(chosen)


def agree(value: Item) -> Item:
    """Return the first process's value in all processes."""
    if current().count == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: Item) -> list[Item]:
    """Return the values of all processes, by their numbers, in all processes."""
    count = current().count
    if count == 1:
        return [value]
    values = [value] * count
    distributed.all_gather_object(values, value)
    return values


def mean(value: float) -> float:
    """Return the mean of a figure over all processes."""
    values = gather(value)
    return sum(values) / len(values)


def together(job: Callable[[], Item]) -> Item:
    """Do a job in all processes, and return this process's result when all of them are done.

    Raises:
        VmpError: The job has failed in a process. All processes raise the error of the first one that has failed.
            Otherwise they would wait for a process that has ended.
    """
    failure = None
    try:
        result = job()
    except VmpError as error:
        failure = error
    for failed in gather(failure):
        if failed is not None:
            raise failed
    return result


def by_first(job: Callable[[], Item]) -> Item:
    """Do a job in the first process, and return its result in all; see `together`."""
    result = together(lambda: job() if current().index == 0 else None)
    return cast(Item, agree(result))


def wait() -> None:
    """Wait until all processes are here."""
    if current().count > 1:
        distributed.barrier()


def training_device() -> torch.device:
    """Return where to train: this process's GPU if PyTorch finds one, or else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
