"""Depth attention as pure functions: the formula of cross-stage attention residuals (arXiv 2604.03297).

For every position p of a stage's input grid, with sources k and their aligned values V_k::

    l_k(p) = q(p) · (g ⊙ V_k(p) / rms(V_k(p)))      one logit per source; rms over channels
    a(p)   = softmax_k l_k(p)
    y(p)   = Σ_k a_k(p) V_k(p)

Only the keys are normalised, never the values. The sources are never stacked: logits and weights have one channel per
source, and the weighted sum is accumulated.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["depth_attention", "depth_weights"]


def depth_weights(values: list[Tensor], query: Tensor, key_scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Weight of every source at every position, ``softmax_k q · (g ⊙ V_k / rms(V_k))``.

    Logits and softmax are computed in float32 at least, whatever the dtype of the values: finite for every float16, and
    up to 1e18 in types of greater range, whose squares are beyond float32 from there on.

    Args:
        values: one tensor ``(B, C, *S)`` per source, all of one shape.
        query: pseudo-query, broadcastable to ``(B, C, *S)``: ``(1, C, 1, …)`` for one query everywhere.
        key_scale: learned scale g of the normalised keys, shape ``(C,)``.
        eps: added to the mean square, so that a source that is zero at a position gets logit 0 there.

    Returns:
        Weights ``(B, N, *S)`` for N sources; they sum to 1 over dimension 1.
    """
    shape = [1, -1] + [1] * (values[0].dim() - 2)
    scaled_query = _at_least_float32(query) * _at_least_float32(key_scale).reshape(shape)
    logits = []
    for value in values:
        key = _at_least_float32(value)
        inverse_rms = torch.rsqrt(key.square().mean(1, keepdim=True) + eps)
        logits.append((key * scaled_query).sum(1, keepdim=True) * inverse_rms)
    return torch.softmax(torch.cat(logits, dim=1), dim=1)


def depth_attention(values: list[Tensor], query: Tensor, key_scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Attend over sources: ``Σ_k a_k V_k`` with the weights of :func:`depth_weights`.

    Args:
        values: one tensor ``(B, C, *S)`` per source, all of one shape.
        query: pseudo-query, broadcastable to ``(B, C, *S)``.
        key_scale: learned scale g of the normalised keys, shape ``(C,)``.
        eps: added to the mean square, so that a source that is zero at a position gets logit 0 there.

    Returns:
        Tensor ``(B, C, *S)`` of the dtype of the last value, the current feature.

    Source: arXiv 2604.03297, cross-stage form of Attention Residuals (arXiv 2603.15031).
    """
    weights = depth_weights(values, query, key_scale, eps)
    dtype = values[-1].dtype
    if dtype != torch.float16:
        # float16 has not the range: its roundings of weights can sum to more than 1, and their gradients are sums over
        # channels
        weights = weights.to(dtype)
    shares = weights.split(1, dim=1)
    attended = values[0] * shares[0]
    for value, weight in zip(values[1:], shares[1:]):
        attended = torch.addcmul(attended, value, weight)
    return attended.to(dtype)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
