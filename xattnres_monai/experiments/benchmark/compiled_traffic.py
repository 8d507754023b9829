"""Count the kernels that the compiler generates for a network, and the bytes that its code reads and writes.

The compiler counts both itself. The counts hold for one kind of device, because a GPU gets other kernels than a CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import torch

__all__ = ["compiler_counts", "fresh_compiler"]

LOG = torch._logging.getArtifactLogger("torch._inductor.compile_fx", "inductor_metrics")


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """Give the compiler empty caches within this context, because it may not count code that it finds in a cache."""
    torch.compiler.reset()  # without it, the compiler gives up on functions that it has compiled too often
    with import_module("torch._inductor.utils").fresh_cache():  # imported only here, because the compiler loads slowly
        yield


@contextmanager
def compiler_counts() -> Iterator[dict[str, int]]:
    """Count what is compiled within this context.

    Returns:
        A dictionary that gets ``kernels`` and ``bytes`` when the context ends; both are 0 if nothing was compiled.
    """
    metrics = import_module("torch._inductor.metrics")
    metrics.reset()
    counts: dict[str, int] = {}
    level = LOG.level
    LOG.setLevel(logging.INFO)  # the compiler counts bytes only if it would also log them
    try:
        yield counts
    finally:
        LOG.setLevel(level)
        counts |= {"kernels": metrics.generated_kernel_count, "bytes": metrics.num_bytes_accessed}
