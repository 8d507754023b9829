from __future__ import annotations

import pytest
import torch

from xattnres_monai import depth_attention, depth_weights


def _values(sources=3, shape=(2, 4, 5, 3), dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(sources)]


def test_a_zero_query_averages_the_sources():
    values = _values()
    result = depth_attention(values, torch.zeros(1, 4, 1, 1), torch.ones(4))
    torch.testing.assert_close(result, sum(values) / 3)


def test_weights_sum_to_one_and_follow_the_query():
    values = _values()
    weights = depth_weights(values, torch.full((1, 4, 1, 1), 2.0), torch.ones(4))
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 5, 3))
    # with a constant query and unit scale the largest weight goes to the source with the largest normalised sum
    score = torch.stack([value.sum(1) / value.square().mean(1).sqrt() for value in values], dim=1)
    assert torch.equal(weights.argmax(1), score.argmax(1))


def test_only_the_keys_are_normalised():
    values = _values()
    query, scale = torch.randn(1, 4, 1, 1), torch.ones(4)
    louder = [values[0] * 100, *values[1:]]
    expected = depth_weights(values, query, scale)
    torch.testing.assert_close(depth_weights(louder, query, scale), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(depth_attention(louder, query, scale), depth_attention(values, query, scale))


def test_an_all_zero_source_gets_logit_zero_and_finite_gradients():
    values = [torch.zeros(1, 4, 2, 2, requires_grad=True), torch.zeros(1, 4, 2, 2, requires_grad=True)]
    depth_attention(values, torch.ones(1, 4, 1, 1), torch.ones(4)).sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_values_keep_float32_weights_and_stay_finite(dtype):
    values = [value.to(dtype) * 200 for value in _values()]  # the sum of squares alone would overflow float16
    weights = depth_weights(values, torch.ones(1, 4, 1, 1), torch.ones(4))
    assert weights.dtype == torch.float32
    result = depth_attention(values, torch.ones(1, 4, 1, 1), torch.ones(4))
    assert result.dtype == dtype and torch.isfinite(result).all()


@pytest.mark.parametrize("query_shape", [(1, 3, 1, 1), (2, 3, 2, 3)], ids=["static", "spatial"])
def test_gradcheck(query_shape):
    values = [value.requires_grad_() for value in _values(shape=(2, 3, 2, 3), dtype=torch.float64)]
    query = torch.randn(query_shape, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, g, *v: depth_attention(list(v), q, g), (query, scale, *values))
