"""Numbers at the ends of their ranges, and runs that ought to give the same numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.networks.nets import UNETR, SegResNet, SwinUNETR, UNet
from torch import Tensor

from tests.bundles.runs import SMALL, workflow
from tests.networks.case import awaken
from xattnres_monai import (
    XAttnResSegResNet,
    XAttnResSwinUNETR,
    XAttnResUNet,
    XAttnResUNETR,
    depth_attention,
    depth_weights,
)

UNET = {"in_channels": 1, "out_channels": 2, "channels": (4, 8, 8), "strides": (2, 2), "num_res_units": 2}
SEG_RESNET = {"in_channels": 1, "out_channels": 2, "init_filters": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)}
VIT = {"in_channels": 1, "out_channels": 2, "feature_size": 4, "hidden_size": 12, "mlp_dim": 16, "num_heads": 2}
SWIN = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": (1, 1, 1, 1), "window_size": 3}
# MONAI's class, ours, their arguments, size of the image
NETWORKS = {
    "unet 2d": (UNet, XAttnResUNet, {**UNET, "spatial_dims": 2}, (16, 16)),
    "unet 3d": (UNet, XAttnResUNet, {**UNET, "spatial_dims": 3}, (8, 8, 8)),
    "segresnet 2d": (SegResNet, XAttnResSegResNet, {**SEG_RESNET, "spatial_dims": 2}, (16, 16)),
    "segresnet 3d": (SegResNet, XAttnResSegResNet, {**SEG_RESNET, "spatial_dims": 3}, (8, 8, 8)),
    "unetr 2d": (UNETR, XAttnResUNETR, {**VIT, "spatial_dims": 2, "img_size": (32, 32)}, (32, 32)),
    "unetr 3d": (UNETR, XAttnResUNETR, {**VIT, "spatial_dims": 3, "img_size": (32, 16, 16)}, (32, 16, 16)),
    "swin unetr 2d": (SwinUNETR, XAttnResSwinUNETR, {**SWIN, "spatial_dims": 2}, (64, 32)),
    "swin unetr 3d": (SwinUNETR, XAttnResSwinUNETR, {**SWIN, "spatial_dims": 3}, (64, 32, 32)),
}
CASES = [
    pytest.param(*network, id=name, marks=[pytest.mark.slow] * (name == "swin unetr 3d"))
    for name, network in NETWORKS.items()
]
VARIANTS = [{}, {"query": "spatial", "fusion": "residual"}, {"skip_connections": False}]
HALF = [torch.bfloat16, torch.float16]


def one_bright_voxel(size: tuple[int, ...]) -> Tensor:
    image = torch.zeros(1, 1, *size)
    image[(0, 0, *(side // 2 for side in size))] = 6e4
    return image


def alternating(size: tuple[int, ...]) -> Tensor:
    return 1e3 * (1 - 2 * (torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij")).sum(0) % 2)[None, None])


EXTREMES = {
    "zero": lambda size: torch.zeros(1, 1, *size),
    "constant": lambda size: torch.ones(1, 1, *size),
    "1e4": lambda size: torch.full((1, 1, *size), 1e4),
    "2e4": lambda size: torch.full((1, 1, *size), 2e4),
    "one bright voxel": one_bright_voxel,
    "alternating": alternating,
    "denormal": lambda size: torch.full((1, 1, *size), 1e-40),
}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("monai_class, network_class, arguments, size", CASES)
def test_autocast_is_finite_where_the_plain_network_is(monai_class, network_class, arguments, size, options, dtype):
    torch.manual_seed(0)
    network = awaken(network_class(**arguments, xattnres=options)).eval()
    # MONAI has no network without skips
    skips = options.get("skip_connections", True)
    plain = monai_class(**arguments) if skips else network_class(**arguments, xattnres={**options, "stages": "none"})
    backbone = {name: value for name, value in network.state_dict().items() if not name.startswith("xattnres.")}
    plain.eval().load_state_dict(backbone)
    finite = []
    for name, image in EXTREMES.items():
        with torch.autocast("cpu", dtype=dtype), torch.inference_mode():
            if torch.isfinite(plain(image(size))).all():
                finite.append(name)
                assert torch.isfinite(network(image(size))).all(), name
    assert {"zero", "constant", "denormal"} <= set(finite)


def loud_values(dtype: torch.dtype, levels: list[float], count: int) -> list[Tensor]:
    """Sources ``(1, 8, 3, 3)`` of these absolute values in turn, of random signs."""
    signs = torch.randint(0, 2, (count, 1, 8, 3, 3), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return [(sign * size).to(dtype).requires_grad_() for sign, size in zip(signs, itertools.cycle(levels))]


LOUDEST = {torch.float16: 65504.0, torch.bfloat16: 1e18, torch.float32: 1e18}


@pytest.mark.parametrize("count", [2, 5, 11])  # of sources: shares of a fifth, rounded to float16, sum to more than 1
@pytest.mark.parametrize("dtype, loudest", LOUDEST.items(), ids=str)
def test_depth_attention_is_finite_at_the_ends_of_a_type(dtype, loudest, count):
    smallest = torch.finfo(dtype).tiny
    query, scale = torch.linspace(-2, 2, 8).reshape(1, 8, 1, 1).requires_grad_(), torch.ones(8, requires_grad=True)
    for levels in ([loudest], [smallest / 4], [0.0], [loudest, 0.0, smallest]):
        values = loud_values(dtype, levels, count)
        weights = depth_weights(values, query, scale)
        torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
        attended = depth_attention(values, query, scale)
        assert torch.isfinite(attended).all()
        assert attended.abs().max() <= 1.05 * max(levels)  # roundings of denormal numbers are that coarse
        if len(levels) == 1:  # to a silent source beside loud ones the gradient itself is out of float16's range
            gradients = torch.autograd.grad(attended, [*values, query, scale], torch.ones_like(attended))
            assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    "name", ["acdc_mri_segmentation", "busi_ultrasound_segmentation", "msd_spleen_ct_segmentation"]
)
def test_logits_do_not_depend_on_workers_or_on_windows_in_a_batch(name, tmp_path):
    data = SMALL[name].write(tmp_path / "data")

    def logits(num_workers: int, windows: int) -> list[Tensor]:
        more = {"num_workers": num_workers, "sliding_window#sw_batch_size": windows, "device": "cpu"}
        flow = workflow(name, "inference", data, tmp_path, **more)
        flow.initialize()
        network = flow.parser.get_parsed_content("network").eval()
        network.load_state_dict(weights)
        inferer, loader = (flow.parser.get_parsed_content(key) for key in ("inferer", "dataloader"))
        with torch.inference_mode():
            return [inferer(batch["image"], network) for batch in loader]

    definition = workflow(name, "inference", data, tmp_path).parser.get_parsed_content("network_def")
    weights = awaken(definition).state_dict()
    expected = logits(0, 1)
    assert all(torch.equal(*pair) for pair in zip(logits(0, 1), expected, strict=True))
    for num_workers, windows in ((2, 1), (0, 2), (0, 4), (2, 4)):
        for got, wanted in zip(logits(num_workers, windows), expected, strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
