"""What a network asks of a GPU in eager mode: operators to launch, and bytes that they read and write.

Counted on the meta device, where nothing is computed and no GPU is needed. Most operators of an aggregation do little
arithmetic with much memory, and those of small networks are done before the next can be launched: on a GPU, bytes and
launches tell more of the time than FLOPs do.
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
    """Counts what runs within it.

    Attributes:
        operators: that computed something; views are none.
        bytes: that they read and wrote, each array once an operator.
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
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())  # expanded: what is there


def traffic(case: Case, options: Mapping[str, Any] | None = None) -> dict[str, dict[str, Traffic]]:
    """Count an inference and the forward and backward pass of a training step, in float32.

    Args:
        case: network and input.
        options: of XAttnRes.

    Returns:
        By form, then by ``inference`` and ``training``.
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
