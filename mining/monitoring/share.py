"""A fixed random share of the examples of a training."""

import logging
from collections.abc import Iterable, Iterator, Sized
from copy import copy
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from mining import InputError
from mining.functional.pytrees import num_examples
from mining.monitoring.loader_state import preserved

log = logging.getLogger(__name__)

#: A loader that names more examples than this multiple of its data set is taken not to end.
_PASSES = 2
#: A share has as many batches, if they are not smaller than this many examples.
_BATCHES, _BATCH = 8, 32
#: Of a stream, which may not end, at most this multiple of the batches that are kept are read.
_OF_STREAM = 64


def take_share(batches: Iterable[Any], num: int, generator: torch.Generator) -> list[Any]:
    """Draw about ``num`` examples of a loader, whatever their order, in batches.

    Of a ``DataLoader`` over a map-style data set single examples are drawn among those that its
    sampler names. Of any other iterable whole batches are drawn in one pass, of which no more are
    held than are returned; of a stream without a length, from its beginning. The loader is left as
    it was; see ``preserved``.

    Args:
        batches: A ``DataLoader``, or another iterable that can be gone through again.
        num: Number of examples; all are taken if there are fewer.
        generator: Source of the choice, on the CPU.

    Raises:
        InputError: If there is no batch, or the iterable is used up by one pass.
    """
    if isinstance(batches, Iterator):
        raise InputError(
            "batches must be a loader or a list that can be gone through again, got an iterator: "
            "the training would miss what is read of it."
        )
    with preserved(batches):
        if isinstance(batches, DataLoader):
            examples = _map_style(batches)
            if batches.batch_sampler is not None and examples is not None:
                return _drawn_examples(batches, examples, num, generator)
            # Workers that persist may be in the middle of an epoch of the training.
            fresh = copy(batches)
            fresh._iterator = None
            return _drawn_batches(fresh, num, generator)
        return _drawn_batches(batches, num, generator)


def _map_style(loader: "DataLoader[Any]") -> "Dataset[Any] | None":
    """Return the data set of a loader if its examples can be read one by one."""
    has_length = hasattr(loader.dataset, "__len__") and hasattr(loader.dataset, "__getitem__")
    return loader.dataset if has_length else None


def _drawn_examples(
    loader: "DataLoader[Any]", examples: Any, num: int, generator: torch.Generator
) -> list[Any]:
    sampler: Any = loader.batch_sampler
    named = list(islice(chain.from_iterable(sampler), _PASSES * len(examples)))
    if not named:
        raise InputError("batches names no examples: at least one is needed.")
    order = torch.randperm(len(named), generator=generator)[:num].tolist()
    chosen = [named[place] for place in order]
    size = loader.batch_size or next(map(len, iter(sampler)))
    # Batches that share statistics stay whole, and the sampling error is the spread between them.
    # A last batch of a single example would have no variance to normalize by.
    size = min(size, max(_BATCH, len(chosen) // _BATCHES), max(2, -(-len(chosen) // 2)))
    share = Subset(examples, chosen)
    return list(DataLoader(share, batch_size=size, collate_fn=loader.collate_fn))


def _drawn_batches(batches: Iterable[Any], num: int, generator: torch.Generator) -> list[Any]:
    """Keep a random choice of batches while going through all (reservoir sampling)."""
    kept: list[Any] = []
    wanted = 0
    ends = _ends(batches)
    for seen, batch in enumerate(batches, start=1):
        if seen == 1:
            wanted = max(2, round(num / max(num_examples(_inputs(batch)), 1)))
        if not ends and seen > _OF_STREAM * wanted:
            log.info("The examples are drawn from the first %d batches.", seen - 1)
            break
        if len(kept) < wanted:
            kept.append(batch)
            continue
        place = int(torch.randint(seen, (), generator=generator))
        if place < wanted:
            kept[place] = batch
    if not kept:
        raise InputError("batches is empty: at least one batch is needed.")
    return kept


def _ends(batches: Iterable[Any]) -> bool:
    """Say whether batches are known to end."""
    if isinstance(batches, DataLoader):
        return isinstance(batches.dataset, Sized)
    return isinstance(batches, Sized)


def _inputs(batch: Any) -> Any:
    """Return what is counted of a batch: the inputs of a pair, or all of it."""
    return batch[0] if isinstance(batch, list | tuple) and batch else batch
