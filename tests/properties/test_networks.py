"""Networks of widths, strides, sizes and options that nobody chose: what they take, and what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.nets import UNETR, SegResNet, SwinUNETR, UNet
from torch import Tensor, nn

from tests.attention.reference import naive
from tests.networks.case import awaken
from tests.properties.strategies import SEEDS, fewer, normal, options
from xattnres_monai import XAttnResSegResNet, XAttnResSwinUNETR, XAttnResUNet, XAttnResUNETR

DIMENSIONS = st.sampled_from([2, 3])


@dataclass(frozen=True)
class Network:
    """A network of MONAI's and ours with the same arguments, and a size of image."""

    monai_class: type[nn.Module]
    network_class: type[nn.Module]
    arguments: dict[str, Any]
    size: tuple[int, ...]

    def image(self, seed: int) -> Tensor:
        return normal(seed, 2, self.arguments["in_channels"], *self.size)

    def build(self, chosen: dict[str, Any], seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return awaken(self.network_class(**self.arguments, xattnres=chosen)).double()


@st.composite
def unets(draw: st.DrawFn, whole: bool) -> Network:
    """``whole``: whether every network takes the size: the strides divide it, into more than one voxel."""
    dimensions = draw(DIMENSIONS)
    levels = draw(st.integers(1, 3))
    stride = st.integers(1, 2) | st.tuples(*[st.integers(1, 3)] * dimensions)
    strides = draw(st.lists(stride, min_size=levels, max_size=levels))
    each = [(step,) * dimensions if isinstance(step, int) else step for step in strides]
    multiples = [int(torch.tensor(axis).prod()) for axis in zip(*each)]
    size = [multiple * draw(st.integers(1, max(1, 12 // multiple))) for multiple in multiples]
    if whole:
        size[0] = max(size[0], 2 * multiples[0])  # instance norm has nothing to say of one voxel
    else:
        size = [max(1, side - draw(st.integers(0, 3))) for side in size]
    arguments = {
        "spatial_dims": dimensions,
        "in_channels": draw(st.integers(1, 2)),
        "out_channels": draw(st.integers(1, 3)),
        "channels": draw(st.lists(st.integers(1, 5), min_size=levels + 1, max_size=levels + 1)),
        "strides": strides,
        "kernel_size": draw(st.sampled_from([1, 3, 5])),
        "num_res_units": draw(st.integers(0, 2)),
        "norm": draw(st.sampled_from(["instance", "batch"])),
    }
    return Network(UNet, XAttnResUNet, arguments, tuple(size))


@st.composite
def seg_resnets(draw: st.DrawFn) -> Network:
    dimensions = draw(DIMENSIONS)
    levels = draw(st.integers(1, 3))
    arguments = {
        "spatial_dims": dimensions,
        "in_channels": 1,
        "out_channels": 2,
        "init_filters": 8,
        "blocks_down": draw(st.lists(st.integers(1, 2), min_size=levels, max_size=levels)),
        "blocks_up": draw(st.lists(st.integers(1, 2), min_size=levels - 1, max_size=levels - 1)),
        "upsample_mode": draw(st.sampled_from(["deconv", "nontrainable", "pixelshuffle"])),
    }
    # not one voxel at the bottom, whose group norm of one number a channel hides everything that comes before it
    sides = [2 ** (levels - 1) * draw(st.integers(2, 3)) for _ in range(dimensions)]
    return Network(SegResNet, XAttnResSegResNet, arguments, tuple(sides))


@st.composite
def unetrs(draw: st.DrawFn) -> Network:
    dimensions = draw(DIMENSIONS)
    size = tuple(16 * draw(st.integers(1, 2 if dimensions == 2 or axis == 0 else 1)) for axis in range(dimensions))
    heads = draw(st.integers(1, 2))
    arguments = {
        "in_channels": 1,
        "out_channels": draw(st.integers(1, 3)),
        "img_size": size,
        "spatial_dims": dimensions,
        "feature_size": draw(st.integers(1, 3)),
        "hidden_size": heads * draw(st.integers(2, 4)) * 2,
        "mlp_dim": 8,
        "num_heads": heads,
        "norm_name": "batch",  # instance norm takes no grid of one token
        "conv_block": draw(st.booleans()),
        "res_block": draw(st.booleans()),
    }
    return Network(UNETR, XAttnResUNETR, arguments, size)


SWIN_UNETRS = st.builds(
    lambda size, depths, normalize: Network(
        SwinUNETR,
        XAttnResSwinUNETR,
        {
            "in_channels": 1, "out_channels": 2, "feature_size": 12, "spatial_dims": 2, "window_size": 3,
            "depths": depths, "normalize": normalize,
        },
        size,
    ),
    st.sampled_from([(32, 64), (64, 32)]),
    st.tuples(*[st.integers(1, 2)] * 4),
    st.booleans(),
)  # fmt: skip
FAMILIES = {"unet": unets(whole=True), "segresnet": seg_resnets(), "unetr": unetrs(), "swin unetr": SWIN_UNETRS}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@fewer(4)
@given(data=st.data(), chosen=options(), training=st.booleans(), seed=SEEDS)
def test_a_network_and_its_gradients_equal_those_with_the_naive_attention(family, data, chosen, training, seed):
    case = data.draw(family)
    network, image = case.build(chosen, seed).train(training), case.image(seed)
    results = []
    for form in (network, naive(network)):
        result = form(image)
        gradients = torch.autograd.grad(result.square().mean(), list(form.parameters()), materialize_grads=True)
        results.append([result, *gradients])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-7 * max(1.0, wanted.abs().max().item()), rtol=0)


@given(case=unets(whole=False), chosen=options(), seed=SEEDS)
def test_a_unet_takes_the_sizes_that_monai_takes_and_gives_the_same_shape(case, chosen, seed):
    plain, image = case.monai_class(**case.arguments).double(), case.image(seed)
    network = case.build(chosen, seed)
    try:
        expected = plain(image).shape
    except (RuntimeError, ValueError):
        with pytest.raises(ValueError, match=r"got an image of size .*, expected multiples of "):
            network(image)
    else:
        assert network(image).shape == expected


@fewer(4)
@given(case=unets(whole=True), chosen=options(), seed=SEEDS)
def test_with_instance_norm_training_and_inference_compute_the_same(case, chosen, seed):
    case = Network(case.monai_class, case.network_class, {**case.arguments, "norm": "instance"}, case.size)
    network, image = case.build(chosen, seed), case.image(seed)
    trained = network.train()(image)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), trained, atol=1e-7, rtol=1e-7)
