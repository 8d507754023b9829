"""Depth attention over a history in blocks that stay in a CPU's cache, with the backward pass written out.

The same numbers as :func:`xattnres_monai.functional.depth_attention` of aligned sources gives. Much of what that costs
on a CPU is neither arithmetic nor reading but new memory: the operating system hands out large arrays page by page, and
takes longer for it than it takes to fill them (docs/performance.md). Here the aligned sources are made one slab of the
volume after another, in buffers that are used over and over, in the forward pass and again in the backward pass.

With q the query times the scale of the keys, r_k = 1 / rms(V_k), l_k = r_k q · V_k, a = softmax(l) and y = Σ_k a_k V_k,
the gradients for a given dy are::

    dl_k = a_k (dy · V_k - dy · y)
    dV_k = a_k dy + dl_k r_k q - dl_k l_k r_k² / C V_k
    dq   = Σ_k dl_k r_k V_k
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xattnres_monai.slabs import prepared

__all__ = ["blockwise_depth_attention", "runs_blockwise"]

BLOCK = 2**19  # numbers in a buffer: 2 MB; half or twice as many were measured to be slower


def runs_blockwise(current: Tensor) -> bool:
    """Whether the blocks were measured to pay and can be used: on a CPU, in eager mode, outside autocast."""
    return (
        current.device.type == "cpu"
        and current.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def blockwise_depth_attention(
    current: Tensor, sources: list[Tensor], kernels: list[Tensor], query: Tensor, eps: float = 1e-6
) -> Tensor:
    """Attend over projected, interpolated sources and the current feature.

    Args:
        current: ``(B, C, *S)``.
        sources: ``(B, C_k, *S_k)``, no axis finer than the current feature's.
        kernels: of their projections, ``(C, C_k, 1, …)``.
        query: times the scale of the keys, ``(1, C, 1, …)`` or ``(B, C, *S)``.
        eps: added to the mean square of a key.

    Returns:
        Tensor ``(B, C, *S)``.
    """
    inputs = current.contiguous(), query, *sources, *kernels
    result: Tensor = _DepthAttention.apply(eps, torch.is_grad_enabled(), *inputs)  # type: ignore[no-untyped-call]
    return result


class _DepthAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, eps: float, keep: bool, current: Tensor, query: Tensor, *rest: Tensor) -> Tensor:
        count = len(rest) // 2
        values, queries = current.flatten(3), query.flatten(3)
        sources = prepared(rest[:count], rest[count:], list(current.shape[2:]), differentiate=False)
        attended = torch.empty_like(current)
        results = attended.flatten(3)
        logits, inverse_rms = [], []
        for start, stop, (product, *buffers) in _blocks(values, count + 1):
            blocks = [source.block(start, stop, buffers[k]) for k, source in enumerate(sources)]
            blocks.append(values[:, :, start:stop])
            part = _part(queries, start, stop)
            mean_squares = [torch.mul(block, block, out=product).mean(1) for block in blocks]
            r = torch.stack(mean_squares, dim=1).add_(eps).rsqrt_()
            logit = torch.stack([_dot(part, block, product) for block in blocks], dim=1).mul_(r)
            weights = torch.softmax(logit, dim=1)
            result = results[:, :, start:stop]
            torch.mul(blocks[0], weights[:, :1], out=result)
            for k in range(1, count + 1):
                result.addcmul_(blocks[k], weights[:, k : k + 1])
            if keep:
                logits.append(logit)
                inverse_rms.append(r)
        ctx.count = count
        ctx.save_for_backward(current, query, attended, *rest, *logits, *inverse_rms)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        current, query, attended, *saved = ctx.saved_tensors
        count = ctx.count
        rest, kept = saved[: 2 * count], saved[2 * count :]
        sources = prepared(rest[:count], rest[count:], list(current.shape[2:]), differentiate=True)
        values, queries, results = current.flatten(3), query.flatten(3), attended.flatten(3)
        d_results = gradient.contiguous().flatten(3)
        d_current, d_query = torch.empty_like(values), torch.zeros_like(queries)
        for index, (start, stop, (aligned, product, d_block)) in enumerate(_blocks(values, 3)):
            logits, inverse_rms = kept[index], kept[len(kept) // 2 + index]
            d_result, part = d_results[:, :, start:stop], _part(queries, start, stop)
            torch.mul(d_result, results[:, :, start:stop], out=product)
            mean = product.sum(1)
            weights = torch.softmax(logits, dim=1)
            for k in range(count + 1):
                block = values[:, :, start:stop] if k == count else sources[k].block(start, stop, aligned)
                r = inverse_rms[:, k]
                torch.mul(d_result, block, out=product)
                d_logit = product.sum(1).sub_(mean).mul_(weights[:, k])
                along_query = (d_logit * r).unsqueeze(1)
                along_value = (along_query[:, 0] * logits[:, k] * r).div_(-values.shape[1]).unsqueeze(1)
                out = d_current[:, :, start:stop] if k == count else d_block
                torch.mul(d_result, weights[:, k : k + 1], out=out)
                out.addcmul_(along_query, part).addcmul_(along_value, block)
                if _is_static(queries, block):
                    d_query += torch.bmm(block.flatten(2), along_query.flatten(2).mT).sum(0).view_as(d_query)
                else:
                    d_query[:, :, start:stop].addcmul_(along_query, block)
                if k < count:
                    sources[k].accumulate(start, stop, out)
        inputs = [source.gradients() for source in sources]
        return (
            None,
            None,
            d_current.view_as(current),
            d_query.view_as(query),
            *(d_source.view_as(source) for (d_source, _), source in zip(inputs, rest)),
            *(d_kernel.view_as(kernel) for (_, d_kernel), kernel in zip(inputs, rest[count:])),
        )


def _blocks(values: Tensor, buffers: int) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Ranges of slabs of ``values`` ``(B, C, D, R)``, each with buffers of their shape that all ranges share."""
    batch, channels, slabs, rest = values.shape
    slab = batch * channels * rest
    length = min(slabs, max(1, BLOCK // max(1, slab)))
    memory = _workspace.take(buffers * length * slab, values.dtype).view(buffers, -1)
    for start in range(0, slabs, length):
        stop = min(start + length, slabs)
        shape = (buffers, batch, channels, stop - start, rest)
        yield start, stop, list(memory[:, : (stop - start) * slab].view(shape))


class _Workspace(threading.local):
    """Memory that a thread keeps for its next call, as large as its largest."""

    def __init__(self) -> None:
        self.memory: dict[torch.dtype, Tensor] = {}

    def take(self, size: int, dtype: torch.dtype) -> Tensor:
        if dtype not in self.memory or self.memory[dtype].numel() < size:
            with torch.inference_mode(False):  # memory of an inference could not be written to in training
                self.memory[dtype] = torch.empty(size, dtype=dtype)
        return self.memory[dtype][:size]


_workspace = _Workspace()


def _is_static(query: Tensor, block: Tensor) -> bool:
    return query.numel() == block.shape[1]


def _part(query: Tensor, start: int, stop: int) -> Tensor:
    return query if query.shape[2] == 1 else query[:, :, start:stop]


def _dot(query: Tensor, block: Tensor, buffer: Tensor) -> Tensor:
    """Q · V ``(B, m, R)``."""
    if not _is_static(query, block):
        return torch.mul(block, query, out=buffer).sum(1)
    batch, channels, slabs, rest = block.shape
    return torch.bmm(query.view(1, 1, channels).expand(batch, 1, channels), block.flatten(2)).view(batch, slabs, rest)
