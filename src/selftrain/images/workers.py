"""Loader processes: items of a dataset in a given order, made ahead by workers, errors passed on whole."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.processes import no_shared_memory, starting_workers, worker

Item = TypeVar("Item")

PREFETCHED = 4
"""Items that each worker makes ahead."""


def in_order(dataset: Dataset[Item], items: Iterable[int], workers: int, pin_memory: bool = False) -> Iterator[Item]:
    """The dataset's items, in the order asked for, made by ``workers`` processes (0: by this one).

    Raises what the user can mend as it was raised; PyTorch would wrap it in the worker's traceback. A worker that dies
    is a RuntimeError, see ``death_of_worker``.
    """
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=None,
        sampler=items,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_begin,
        prefetch_factor=PREFETCHED if workers else None,
    )
    with starting_workers():
        made = iter(loader)
    for item in made:
        if isinstance(item, UserError):
            raise item
        yield item


def loader_processes() -> int:
    """How many processes make items, of which this one makes every so many-th."""
    info = get_worker_info()
    return 1 if info is None else int(info.num_workers)


class _ErrorsAsItems(Dataset[Any]):
    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, place: int) -> Any:
        try:
            item = self.dataset[place]
        except UserError as error:
            return error
        if get_worker_info() is None:
            return item
        try:
            _share(item)
        except RuntimeError as error:
            return UserError(no_shared_memory(str(error)))
        return item


def _share(item: Any) -> None:
    """Move an item's tensors to shared memory. The queue would do it later, in a thread whose errors nobody hears."""
    if isinstance(item, Tensor):
        item.share_memory_()  # type: ignore[no-untyped-call]
    elif isinstance(item, dict):
        for part in item.values():
            _share(part)
    elif isinstance(item, (list, tuple)):
        for part in item:
            _share(part)


def _begin(number: int) -> None:
    del number
    worker()
    torch.set_num_threads(1)
