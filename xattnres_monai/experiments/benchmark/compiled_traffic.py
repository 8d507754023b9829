"""What a compiled network asks of a device: kernels that the compiler generated, and bytes that all its code moves.

The compiler counts both itself, for the device that it compiles for: a GPU's kernels are others than a CPU's.
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
    """Nothing is compiled yet: code that the compiler finds in a cache may not be counted."""
    torch.compiler.reset()  # it stops compiling a function that it has compiled for many networks
    with import_module("torch._inductor.utils").fresh_cache():  # not imported above: the compiler takes long to load
        yield


@contextmanager
def compiler_counts() -> Iterator[dict[str, int]]:
    """Count what is compiled within.

    Returns:
        ``kernels`` and ``bytes``; filled in at the end, and 0 where nothing was compiled.
    """
    metrics = import_module("torch._inductor.metrics")
    metrics.reset()
    counts: dict[str, int] = {}
    level = LOG.level
    LOG.setLevel(logging.INFO)  # the compiler counts bytes only where it would log them
    try:
        yield counts
    finally:
        LOG.setLevel(level)
        counts |= {"kernels": metrics.generated_kernel_count, "bytes": metrics.num_bytes_accessed}
