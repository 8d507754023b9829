"""The table of parameters in docs/networks.md, counted again."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from monai.networks.nets import UNETR, SegResNet, SwinUNETR, UNet

from xattnres_monai import XAttnResSegResNet, XAttnResSwinUNETR, XAttnResUNet, XAttnResUNETR

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
UNET = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}
NETWORKS = {
    "UNet 3D (16…256), 2 residual units": (UNet, XAttnResUNet, {"spatial_dims": 3, "num_res_units": 2, **UNET}),
    "UNet 3D (16…256)": (UNet, XAttnResUNet, {"spatial_dims": 3, **UNET}),
    "UNet 2D (16…256), 2 residual units": (UNet, XAttnResUNet, {"spatial_dims": 2, "num_res_units": 2, **UNET}),
    "UNETR 3D f16, 96³": (UNETR, XAttnResUNETR, {"img_size": 96, "feature_size": 16}),
    "SwinUNETR 3D f48": (SwinUNETR, XAttnResSwinUNETR, {"feature_size": 48}),
    "SegResNet 3D f16": (SegResNet, XAttnResSegResNet, {"init_filters": 16}),
}
AT_MOST_5_PERCENT = ["UNet 3D (16…256), 2 residual units", "UNETR 3D f16, 96³", "SwinUNETR 3D f48"]


@functools.cache
def counts(name: str) -> tuple[int, int, int, int]:
    """Of MONAI's network, of ours, and of both without skips."""
    plain, ours, arguments = NETWORKS[name]
    no_skip = {"skip_connections": False}
    networks = (
        plain(in_channels=1, out_channels=14, **arguments),
        ours(in_channels=1, out_channels=14, **arguments),
        ours(in_channels=1, out_channels=14, **arguments, xattnres={**no_skip, "stages": "none"}),
        ours(in_channels=1, out_channels=14, **arguments, xattnres=no_skip),
    )
    return tuple(sum(parameter.numel() for parameter in network.parameters()) for network in networks)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_states_what_is_counted(name):
    cells = [name]
    plain, ours, plain_no_skip, ours_no_skip = counts(name)
    for without, with_attention in ((plain, ours), (plain_no_skip, ours_no_skip)):
        added = with_attention - without
        cells += [f"{without:,}", f"{added:,} ({100 * added / without:.1f} %)"]
    assert f"| {' | '.join(cells)} |" in PAGE.read_text()


@pytest.mark.parametrize("name", AT_MOST_5_PERCENT)
def test_the_usual_networks_grow_by_at_most_5_percent(name):
    plain, ours, *_ = counts(name)
    assert ours <= 1.05 * plain


@pytest.mark.parametrize("name", ["UNet 3D (16…256)", "UNETR 3D f16, 96³", "SwinUNETR 3D f48"])
def test_without_skips_a_decoder_has_no_weights_for_them(name):
    plain, _, plain_no_skip, _ = counts(name)
    assert plain_no_skip < plain
