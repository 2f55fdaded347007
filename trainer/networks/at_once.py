"""Two networks at once on a CPU, on half of its threads each: sparse convolutions keep one busy, of however many."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from torch import Tensor

Work = Callable[[], tuple[Tensor, ...]]
T = TypeVar("T")

BESIDE = ThreadPoolExecutor(1, thread_name_prefix="second-network")


def at_once(first: Work, second: Work, device: torch.device) -> tuple[Tensor, ...]:
    """Return what `first` returns, then what `second` does; the two share no parameter that learns.

    They run at the same time, forward and backward, where both wait for the same CPU; in turn on a GPU, where nobody
    asks for gradients, and under DDP, which must see each parameter's gradient come and has a rank a core.
    """
    alone = device.type == "cpu" and not (torch.distributed.is_available() and torch.distributed.is_initialized())
    if not (alone and torch.is_grad_enabled() and torch.get_num_threads() > 1):
        return *first(), *second()
    made: tuple[Tensor, ...] = _AtOnce.apply(torch.zeros((), requires_grad=True), first, second)
    return made


class _AtOnce(torch.autograd.Function):
    """Hides both graphs from autograd, which would run them backward in one thread.

    `_asks` only makes the results ask for gradients.
    """

    @staticmethod
    def forward(ctx: Any, _asks: Tensor, first: Work, second: Work) -> tuple[Tensor, ...]:
        ctx.made = _side_by_side(first, second)
        return tuple(part.detach() for made in ctx.made for part in made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        first, second = ctx.made
        of_first, of_second = gradients[: len(first)], gradients[len(first) :]
        _side_by_side(
            lambda: torch.autograd.backward(first, of_first), lambda: torch.autograd.backward(second, of_second)
        )
        return None, None, None


def _side_by_side(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    threads = torch.get_num_threads()
    beside = BESIDE.submit(_work, second, threads // 2)
    try:
        return _work(first, threads - threads // 2), beside.result()
    finally:
        wait([beside])
        torch.set_num_threads(threads)


@torch.enable_grad()
def _work(work: Callable[[], T], threads: int) -> T:
    torch.set_num_threads(threads)
    return work()
