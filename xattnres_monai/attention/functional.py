"""The equations of cross-stage attention residuals (XAttnRes, arXiv 2604.03297) as pure functions.

:func:`nested_attention` is the default form of the networks: it weighs sources on their own grids, from the coarsest to
the finest. :func:`depth_attention` is the paper's form: it weighs sources that have all been brought to one grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["at_least_float32", "depth_attention", "depth_weights", "mean_square", "nested_attention"]


def nested_attention(values: list[Tensor], scores: list[Tensor], mean_squares: list[Tensor]) -> Tensor:
    """Weigh values on their own grids and carry the result from the coarsest grid to the finest.

    The logit of source k is ``l_k = s_k / rms_k``. The score ``s_k = u_k · h_k`` is the product of a pseudo-query and
    the source's feature. ``rms_k`` is the root mean square of that feature over its channels. On every grid, one
    softmax weighs the grid's own sources and the pair (value, logit) that comes from a coarser grid::

        a = softmax(l)        v = Σ_k a_k v_k        l = log Σ_k exp l_k

    The resulting pair ``(v, l)`` is interpolated linearly to the next finer grid. There it competes as one source.
    At every position, the result is a weighted mean of the values. If all values and logits are constant over their
    grids, or if all grids are equal, it equals one softmax over all sources. If all logits are 0, all sources weigh the
    same.

    Args:
        values: one tensor ``(B, C, *S_k)`` per source. The last one is on the finest grid, which the result has too.
        scores: one tensor ``(B, 1, *S_k)`` per source.
        mean_squares: one tensor ``(B, 1, *S_k)`` per source. It is the mean square of the source's feature over the
            channels, as :func:`~xattnres_monai.attention.functional.mean_square` computes it.

    Returns:
        Tensor ``(B, C, *S)`` with the grid and dtype of the last value.

    Raises:
        IndexError: when ``values`` is empty, or when another list is shorter than it.
        RuntimeError: when the shapes do not fit together (raised by PyTorch).

    Source:
        arXiv 2604.03297 (XAttnRes), the cross-stage form of Attention Residuals (arXiv 2603.15031). The paper takes one
        softmax on one grid (:func:`depth_attention`). docs/mechanism.md explains the differences.

    Example::

        import torch
        from xattnres_monai import nested_attention

        values = [torch.rand(1, 32, 16, 16), torch.rand(1, 32, 32, 32)]
        scores = [torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 32, 32)]
        mean_squares = [torch.ones(1, 1, 16, 16), torch.ones(1, 1, 32, 32)]
        nested_attention(values, scores, mean_squares).shape  # (1, 32, 32, 32)
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
    """Return the mean square over the channels.

    Args:
        feature: output of a stage, ``(B, C, *S)``.
        eps: small number added to the result. With it, a feature gets the logit 0 where all its channels are zero.

    Returns:
        Tensor ``(B, 1, *S)``, in float64 if ``feature`` is, else in float32.
    """
    return at_least_float32(feature).square().mean(1, keepdim=True) + eps


def depth_weights(values: list[Tensor], query: Tensor, key_scale: Tensor) -> Tensor:
    """Return the weight of every source at every position, in the paper's form.

    Logits and softmax are computed in float32 at least, whatever the dtype of the values.

    Args:
        values: one tensor ``(B, C, *S)`` per source, all of the same shape.
        query: pseudo-query q, broadcastable to ``(B, C, *S)``. Give ``(1, C, 1, …)`` for one query at all positions.
        key_scale: learned scale g of the normalised keys, shape ``(C,)``.

    Returns:
        Weights ``(B, N, *S)`` for N sources. They sum to 1 over dimension 1.

    Raises:
        IndexError: when ``values`` is empty.
        RuntimeError: when the shapes do not fit together (raised by PyTorch).

    Source:
        arXiv 2604.03297 (XAttnRes), the cross-stage form of Attention Residuals (arXiv 2603.15031):
        ``a = softmax_k q · (g ⊙ V_k / rms(V_k))``.

    Example::

        import torch
        from xattnres_monai import depth_weights

        values = [torch.rand(1, 32, 16, 16), torch.rand(1, 32, 16, 16), torch.rand(1, 32, 16, 16)]
        depth_weights(values, query=torch.zeros(1, 32, 1, 1), key_scale=torch.ones(32)).shape  # (1, 3, 16, 16)
    """
    shape = [1, -1] + [1] * (values[0].dim() - 2)
    scaled_query = at_least_float32(query) * at_least_float32(key_scale).reshape(shape)
    logits = []
    for value in values:
        key = at_least_float32(value)
        logits.append((key * scaled_query).sum(1, keepdim=True) * torch.rsqrt(mean_square(key)))
    return torch.softmax(torch.cat(logits, dim=1), dim=1)


def depth_attention(values: list[Tensor], query: Tensor, key_scale: Tensor) -> Tensor:
    """Return the weighted mean of the sources, in the paper's form.

    Args:
        values: one tensor ``(B, C, *S)`` per source, all of the same shape. The last one is the current feature.
        query: pseudo-query q, broadcastable to ``(B, C, *S)``. Give ``(1, C, 1, …)`` for one query at all positions.
        key_scale: learned scale g of the normalised keys, shape ``(C,)``.

    Returns:
        Tensor ``(B, C, *S)`` with the dtype of the last value.

    Raises:
        IndexError: when ``values`` is empty.
        RuntimeError: when the shapes do not fit together (raised by PyTorch).

    Source:
        arXiv 2604.03297 (XAttnRes), the cross-stage form of Attention Residuals (arXiv 2603.15031):
        ``y = Σ_k a_k V_k`` with the weights ``a_k`` of :func:`depth_weights`.

    Example::

        import torch
        from xattnres_monai import depth_attention

        values = [torch.rand(1, 32, 16, 16), torch.rand(1, 32, 16, 16), torch.rand(1, 32, 16, 16)]
        depth_attention(values, query=torch.zeros(1, 32, 1, 1), key_scale=torch.ones(32)).shape  # (1, 32, 16, 16)
    """
    return _weighted_mean(values, depth_weights(values, query, key_scale))


def _weighted_mean(values: list[Tensor], weights: Tensor) -> Tensor:
    """Return ``Σ_k a_k v_k`` in the dtype of the last value. The weights ``(B, N, *S)`` sum to 1."""
    if len(values) == 1:
        return values[0]
    dtype = values[-1].dtype
    values = [value.to(dtype) for value in values]  # autocast can give them different dtypes
    if dtype != torch.float16:
        # float16 could overflow: rounded weights can sum to more than 1, and their gradients are sums over channels
        weights = weights.to(dtype)
    shares = weights.split(1, dim=1)
    if len(values) == 2 and weights.dtype == dtype:  # one operator instead of two, for less memory traffic
        return torch.lerp(values[0], values[1], shares[1])
    mean = values[0] * shares[0]
    for value, share in zip(values[1:], shares[1:]):
        mean = torch.addcmul(mean, value, share)
    return mean.to(dtype)


def _interpolated(feature: Tensor, size: list[int]) -> Tensor:
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(feature, size=size, mode=mode, align_corners=False)


def _ordered_grids(values: list[Tensor]) -> list[list[int]]:
    """Return each grid of the values once, sorted by the number of voxels, smallest first."""
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
    """Return the indices of the values that are on a grid."""
    places: list[int] = []  # a loop, because TorchScript has no comprehensions with a condition
    for place, value in enumerate(values):
        if list(value.shape[2:]) == grid:
            places.append(place)
    return places


def _next_finer(grids: list[list[int]], position: int) -> int:
    """Return the position of the next grid that is coarser along no axis. The last grid always qualifies."""
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
    """Return a float64 tensor as it is, and any other in float32. Logits and norms can overflow half precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
