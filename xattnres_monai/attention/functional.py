"""The formulas of cross-stage attention residuals (XAttnRes, arXiv 2604.03297) as pure functions.

:func:`nested_attention` is the form that the networks use: sources are weighed on their own grids, from the coarsest to
the finest. :func:`depth_attention` is the paper's form: all sources are brought to one grid and weighed there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["at_least_float32", "depth_attention", "depth_weights", "mean_square", "nested_attention"]


def nested_attention(values: list[Tensor], scores: list[Tensor], mean_squares: list[Tensor]) -> Tensor:
    """Weigh values on their own grids and carry the result from the coarsest grid to the finest.

    The logit of source k is ``l_k = s_k / rms_k``, the score ``s_k = u_k · h_k`` over the root mean square of the
    feature ``h_k`` that it was made of. On every grid, the sources of this grid and the pair (value, logit) that comes
    from a coarser grid are weighed by one softmax::

        a = softmax(l)        v = Σ_k a_k v_k        l = log Σ_k exp l_k

    The pair ``(v, l)`` that results is interpolated linearly to the next finer grid. There it competes as one source.
    The result is a weighted mean of the values at every position. It equals one softmax over all sources where all
    fields are constant or all grids are equal, and weighs all sources equally where all logits are 0.

    Args:
        values: one tensor ``(B, C, *S_k)`` per source. The last one is on the finest grid, that of the result.
        scores: one tensor ``(B, 1, *S_k)`` per source.
        mean_squares: of each source's feature over its channels, ``(B, 1, *S_k)``, by :func:`mean_square`.

    Returns:
        Tensor ``(B, C, *S)`` on the grid of the last value and of its dtype.
    """
    grids = _ordered_grids(values)
    carried_values: list[list[Tensor]] = [[] for _ in grids]
    carried_logits: list[list[Tensor]] = [[] for _ in grids]
    result = values[-1]
    for position, grid in enumerate(grids):
        chosen = _on_grid(values, grid)
        competing = carried_values[position] + [values[k] for k in chosen]
        norms = torch.rsqrt(_joined([mean_squares[k] for k in chosen]))
        logits = _joined(carried_logits[position] + [_joined([scores[k] for k in chosen]) * norms])
        result = _weighted_mean(competing, torch.softmax(logits, dim=1))
        if position < len(grids) - 1:
            target = _next_finer(grids, position)
            total = torch.logsumexp(logits, dim=1, keepdim=True)
            carried_values[target].append(_interpolated(result, grids[target]))
            carried_logits[target].append(_interpolated(total, grids[target]))
    return result


def mean_square(feature: Tensor, eps: float = 1e-6) -> Tensor:
    """Mean square over the channels, ``(B, 1, *S)`` of ``(B, C, *S)``, in float32 at least.

    Args:
        feature: output of a stage.
        eps: added, so that a feature that is zero at a position gets the logit 0 there.
    """
    return at_least_float32(feature).square().mean(1, keepdim=True) + eps


def depth_weights(values: list[Tensor], query: Tensor, key_scale: Tensor) -> Tensor:
    """Weight of every source at every position in the paper's form, ``softmax_k q · (g ⊙ V_k / rms(V_k))``.

    Logits and softmax are computed in float32 at least, whatever the dtype of the values.

    Args:
        values: one tensor ``(B, C, *S)`` per source, all of one shape.
        query: pseudo-query, broadcastable to ``(B, C, *S)``: ``(1, C, 1, …)`` for one query everywhere.
        key_scale: learned scale g of the normalised keys, shape ``(C,)``.

    Returns:
        Weights ``(B, N, *S)`` for N sources; they sum to 1 over dimension 1.
    """
    shape = [1, -1] + [1] * (values[0].dim() - 2)
    scaled_query = at_least_float32(query) * at_least_float32(key_scale).reshape(shape)
    logits = []
    for value in values:
        key = at_least_float32(value)
        logits.append((key * scaled_query).sum(1, keepdim=True) * torch.rsqrt(mean_square(key)))
    return torch.softmax(torch.cat(logits, dim=1), dim=1)


def depth_attention(values: list[Tensor], query: Tensor, key_scale: Tensor) -> Tensor:
    """Attend over sources in the paper's form: ``Σ_k a_k V_k`` with the weights of :func:`depth_weights`.

    Args:
        values: one tensor ``(B, C, *S)`` per source, all of one shape.
        query: pseudo-query, broadcastable to ``(B, C, *S)``.
        key_scale: learned scale g of the normalised keys, shape ``(C,)``.

    Returns:
        Tensor ``(B, C, *S)`` of the dtype of the last value, the current feature.

    Source: arXiv 2604.03297, cross-stage form of Attention Residuals (arXiv 2603.15031).
    """
    return _weighted_mean(values, depth_weights(values, query, key_scale))


def _weighted_mean(values: list[Tensor], weights: Tensor) -> Tensor:
    """``Σ_k a_k v_k`` for weights ``(B, N, *S)`` that sum to 1, in the dtype of the last value."""
    if len(values) == 1:
        return values[0]
    dtype = values[-1].dtype
    values = [value.to(dtype) for value in values]  # under autocast they may be of several
    if dtype != torch.float16:
        # float16 has not the range: its roundings of weights can sum to more than 1, and their gradients are sums over
        # channels
        weights = weights.to(dtype)
    shares = weights.split(1, dim=1)
    if len(values) == 2 and weights.dtype == dtype:  # one operator instead of two: less memory traffic
        return torch.lerp(values[0], values[1], shares[1])
    mean = values[0] * shares[0]
    for value, share in zip(values[1:], shares[1:]):
        mean = torch.addcmul(mean, value, share)
    return mean.to(dtype)


def _interpolated(feature: Tensor, size: list[int]) -> Tensor:
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(feature, size=size, mode=mode, align_corners=False)


def _ordered_grids(values: list[Tensor]) -> list[list[int]]:
    """The grids of the values, each once, those of fewer voxels first."""
    grids: list[list[int]] = []
    for value in values:
        size = list(value.shape[2:])
        known, place = False, 0
        for grid in grids:
            known = known or grid == size
            place += int(_voxels(grid) <= _voxels(size))
        if not known:
            grids.insert(place, size)
    return grids


def _on_grid(values: list[Tensor], grid: list[int]) -> list[int]:
    """Places of the values on a grid; a loop, as TorchScript has no comprehensions with a condition."""
    places: list[int] = []
    for place, value in enumerate(values):
        if list(value.shape[2:]) == grid:
            places.append(place)
    return places


def _next_finer(grids: list[list[int]], position: int) -> int:
    """The next grid that is coarser along no axis; the last one is such a grid."""
    for later in range(position + 1, len(grids)):
        if [max(n, m) for n, m in zip(grids[later], grids[position])] == grids[later]:
            return later
    return len(grids) - 1


def _voxels(size: list[int]) -> int:
    voxels = 1
    for side in size:
        voxels *= side
    return voxels


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64: logits and norms are beyond the range of half precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
