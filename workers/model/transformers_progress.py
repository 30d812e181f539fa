"""Progress of transformers while it loads a model's tensors."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol

from transformers.utils import logging

from workers.model.progress import Phase, Report

# How transformers 5 names the progress bar of its one loop over a model's tensors (`core_model_loading`).
_LOADING_WEIGHTS = "Loading weights"


class _Tensors(Iterable[object], Sized, Protocol):
    """A model's tensors, as transformers loads them."""


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Report the tensors that transformers loads during the block; at most one block runs at a time."""

    def hook(make_bar: Callable[..., object], args: tuple[_Tensors, ...], kwargs: dict[str, object]) -> object:
        if kwargs.get("desc") == _LOADING_WEIGHTS and args:
            return _counted(args[0], report)
        return make_bar(*args, **kwargs)

    previous = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)


def _counted(tensors: _Tensors, report: Report) -> Iterator[object]:
    total = len(tensors)
    for number, tensor in enumerate(tensors):
        report(Phase.LOADING, number, total)
        yield tensor
    report(Phase.LOADING, total, total)
