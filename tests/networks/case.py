"""The table of cases that a network's test file gives, and what the contracts do with a case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn


@dataclass(frozen=True)
class Case:
    """Constructor arguments without ``xattnres``, sizes the network takes, and sizes it does not with the multiple."""

    arguments: dict[str, Any]
    sizes: tuple[tuple[int, ...], ...]
    refused: tuple[tuple[int, ...], ...]
    multiple: tuple[int, ...]


# every pair of values of two options; every combination is trained a step, those in 3D in the slow suite
VARIANTS = [
    {"query": "static", "fusion": "replace", "skip_connections": True},
    {"query": "static", "fusion": "replace", "skip_connections": False},
    {"query": "static", "fusion": "residual", "skip_connections": True},
    {"query": "spatial", "fusion": "replace", "skip_connections": True},
    {"query": "spatial", "fusion": "residual", "skip_connections": False},
    {"sources": "unskipped", "fusion": "replace", "skip_connections": True},
    {"form": "literal", "fusion": "residual", "skip_connections": False},
]


def awaken(network: nn.Module) -> nn.Module:
    """Random values for what starts at zero (queries, γ), so that a test sees the whole mechanism."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.xattnres.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def assert_agrees(got: torch.Tensor, expected: torch.Tensor) -> None:
    """To 1e-4 of the largest logit: instance norm over the few voxels of these small cases amplifies rounding."""
    torch.testing.assert_close(got, expected, atol=1e-4 * max(1.0, expected.abs().max().item()), rtol=0)


class NetworkCases:
    """The class attributes that a test file sets, and networks and images of a case."""

    network_class: ClassVar[type[nn.Module]]
    monai_class: ClassVar[type[nn.Module]]
    cases: ClassVar[dict[str, Case]]
    batch: ClassVar[int] = 2
    exports_slowly: ClassVar[bool] = False  # whether ONNX and compilers take half a minute and more

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases.values(), ids=self.cases.keys())
        for fixture in {"first_case", "exported_case"} & set(metafunc.fixturenames):  # where a cell takes many seconds
            firsts = {len(case.sizes[0]): case for case in reversed(self.cases.values())}
            slow = {3, 2} if fixture == "exported_case" and self.exports_slowly else {3}
            cases = [
                pytest.param(case, marks=[pytest.mark.slow] * (dims in slow), id=f"{dims}d")
                for dims, case in firsts.items()
            ]
            metafunc.parametrize(fixture, cases)
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))

    def build(self, case: Case, **options: Any) -> nn.Module:
        torch.manual_seed(0)
        return awaken(self.network_class(**case.arguments, xattnres=options))

    def image(self, case: Case, size: tuple[int, ...] | None = None, batch: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        shape = (batch or self.batch, case.arguments["in_channels"], *(size or case.sizes[0]))
        return torch.rand(shape, generator=generator)
