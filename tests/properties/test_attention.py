"""Depth attention and cross-stage attention against the naive reference, on grids and widths that nobody chose."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.attention import reference
from tests.properties.strategies import SEEDS, normal, options, sizes
from xattnres_monai import CrossStageAttention, FeatureHistory, depth_attention, depth_weights
from xattnres_monai.attention.literal import LiteralAttention

DIMENSIONS = st.sampled_from([2, 3])
# of a value; sums of a handful of them, in one order or another, stay within some roundings
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class Stages:
    """A stage and what it can attend on: widths and grids of the history, and the places of its sources in it."""

    widths: list[int]
    grids: list[tuple[int, ...]]
    sources: list[int]
    batch: int
    options: dict[str, Any]

    def module(self, seed: int) -> CrossStageAttention:
        """With random parameters: zero ones would hide half of the formula."""
        widths = [self.widths[source] for source in self.sources]
        kind = LiteralAttention if self.options["form"] == "literal" else CrossStageAttention
        built = kind(len(self.grids[0]), self.widths[-1], widths, self.options, self.sources).double()
        for number, parameter in enumerate(built.parameters()):
            parameter.data = normal(seed + number, *parameter.shape)
        return built

    def outputs(self, seed: int) -> list[Tensor]:
        shapes = [(self.batch, width, *grid) for width, grid in zip(self.widths, self.grids)]
        return [normal(seed + number, *shape).requires_grad_() for number, shape in enumerate(shapes)]


@st.composite
def stages(draw: st.DrawFn) -> Stages:
    dimensions = draw(DIMENSIONS)
    grids = draw(st.lists(sizes(dimensions, 17 if dimensions == 2 else 9), min_size=1, max_size=5))
    if draw(st.booleans()):  # a pyramid: every grid a stride coarser than the one before, and the way back
        strides = draw(st.lists(st.tuples(*[st.integers(1, 3)] * dimensions), min_size=1, max_size=2))
        pyramid = [grids[0]]
        for stride in strides:
            pyramid.append(tuple(-(-side // step) for side, step in zip(pyramid[-1], stride)))
        grids = [*pyramid, *pyramid[-2::-1]]
    widths = draw(st.lists(st.integers(1, 5), min_size=len(grids), max_size=len(grids)))
    earlier = st.lists(st.sampled_from(range(len(grids) - 1)), unique=True) if len(grids) > 1 else st.just([])
    chosen = draw(options("form", "query", "fusion", "recompute"))
    return Stages(widths, grids, sorted(draw(earlier)), draw(st.integers(1, 3)), chosen)


def attend(module: CrossStageAttention, outputs: list[Tensor]) -> Tensor:
    history = FeatureHistory()
    for output in outputs:
        history.append(output)
    return module(outputs[-1], history)


def attend_naively(module: CrossStageAttention, outputs: list[Tensor]) -> Tensor:
    return reference.cross_stage_attention(module, [*(outputs[source] for source in module.sources), outputs[-1]])


def assert_equal(got: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """To a few roundings of the largest entry, since gradients of parameters are sums over all voxels."""
    bound = TOLERANCE[dtype] * max(1.0, wanted.abs().max().item())
    torch.testing.assert_close(got.double(), wanted, atol=bound, rtol=0)


@given(
    count=st.integers(1, 6),
    grid=DIMENSIONS.flatmap(lambda dimensions: sizes(dimensions, 5)),
    batch=st.integers(1, 3),
    width=st.integers(1, 9),
    loudness=st.sampled_from([0.0, 1e-4, 1.0, 1e3]),
    spatial=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=SEEDS,
)
def test_depth_attention_equals_the_naive_reference(count, grid, batch, width, loudness, spatial, dtype, seed):
    values = [loudness * normal(seed + k, batch, width, *grid) for k in range(count)]
    query = normal(seed + count, *((batch, width, *grid) if spatial else (1, width, *[1] * len(grid))))
    given_values, given_query, scale = [value.to(dtype) for value in values], query.to(dtype), torch.rand(width)
    exact = [value.double() for value in given_values], given_query.double(), scale.double()
    weights = depth_weights(given_values, given_query, scale)
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_equal(weights, reference.depth_weights(*exact), max(torch.float32, weights.dtype, key=TOLERANCE.get))
    attended = depth_attention(given_values, given_query, scale)
    assert attended.dtype == dtype
    assert_equal(attended, reference.depth_attention(*exact), dtype)


@given(case=stages(), seed=SEEDS)
def test_cross_stage_attention_and_its_gradients_equal_the_naive_reference(case, seed):
    module, outputs = case.module(seed), case.outputs(seed)
    leaves = [*outputs, *module.parameters()]
    results = []
    for form in (attend, attend_naively):
        result = form(module, outputs)
        direction = normal(seed, *result.shape)
        gradients = torch.autograd.grad(result, leaves, direction, allow_unused=True, materialize_grads=True)
        results.append([result, *gradients])
    for got, wanted in zip(*results, strict=True):
        assert_equal(got, wanted, torch.float64)


@given(case=stages(), dtype=st.sampled_from(list(TOLERANCE)), channels_last=st.booleans(), seed=SEEDS)
def test_inference_in_every_precision_and_memory_format(case, dtype, channels_last, seed):
    module = case.module(seed).to(dtype)
    layout = [torch.contiguous_format, {4: torch.channels_last, 5: torch.channels_last_3d}[2 + len(case.grids[0])]]
    outputs = [output.to(dtype, memory_format=layout[channels_last]) for output in case.outputs(seed)]
    with torch.inference_mode():
        got = attend(module, outputs)
        wanted = attend_naively(copy.deepcopy(module).double(), [output.double() for output in outputs])
    assert got.dtype == dtype
    if dtype == torch.bfloat16:
        # where a projection nearly cancels, its direction, and with it its weight, is a matter of rounding
        error = (got.double() - wanted).abs().mean()
        assert error <= TOLERANCE[dtype] * max(1.0, wanted.abs().max().item())
    else:
        assert_equal(got, wanted, dtype)
