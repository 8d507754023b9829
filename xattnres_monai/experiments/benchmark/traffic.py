"""Count the operators that a network launches in eager mode, and the bytes that they read and write.

The counting runs on the meta device, which computes nothing, so it needs no GPU. On a GPU, memory traffic and kernel
launches predict the time better than FLOPs. Most steps of the attention do little arithmetic on much data, and in small
networks an operator finishes before the next one can be launched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xattnres_monai.experiments.benchmark.cases import FORMS, Case

__all__ = ["Traffic", "traffic"]


class Traffic(TorchDispatchMode):
    """Context that counts the operators that run within it.

    Attributes:
        operators: number of operators that computed something. Views do not count.
        bytes: bytes that these operators read and wrote; each array counts once per operator.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if read and not func.is_view and func is not torch.ops.aten._unsafe_view.default:
            written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.operators += 1
            self.bytes += sum(_bytes(tensor) for tensor in read + written)
        return result


def _bytes(tensor: Tensor) -> int:
    # an expanded tensor has more elements than its storage
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def traffic(case: Case, options: Mapping[str, Any] | None = None) -> dict[str, dict[str, Traffic]]:
    """Count operators and bytes of an inference, and of the forward and backward pass of a training step, in float32.

    Args:
        case: network and input.
        options: options of XAttnRes.

    Returns:
        The counts by form, then by ``inference`` and ``training``.
    """
    counts: dict[str, dict[str, Traffic]] = {}
    for form in FORMS:
        network = case.build(form, options or {}).to("meta")
        counts[form] = {}
        for mode, training in (("inference", False), ("training", True)):
            with torch.set_grad_enabled(training), Traffic() as counts[form][mode]:
                result = network.train(training)(case.image("meta"))
                if training:
                    result.sum().backward()
    return counts
