"""What varies by config alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundle_runs import NAMES, SMALL, SWIN_UNETR, UNET_2D, UNET_3D, ZOO, workflow

NETWORKS = ("unet", "unetr", "swin_unetr")
VARIANTS = sorted(path.stem for path in (ZOO / "templates").glob("variant_*.json"))
TINY = {
    ("unet", 2): UNET_2D,
    ("unet", 3): UNET_3D,
    ("unetr", 2): {"roi_size": [32, 16], "network_def#hidden_size": 24, "network_def#num_heads": 2},
    ("unetr", 3): {"roi_size": [32, 16, 16], "network_def#hidden_size": 24, "network_def#num_heads": 2},
    ("swin_unetr", 2): {**SWIN_UNETR, "roi_size": [64, 32]},
    ("swin_unetr", 3): SWIN_UNETR,
}


def experiment(name: str, network: str, variant: str | None) -> ConfigParser:
    files = ["train", f"network_{network}", *([variant] if variant else [])]
    parser = ConfigParser()
    parser.read_config([ZOO / name / "configs" / f"{file}.json" for file in files])
    dims = parser["spatial_dims"]
    for key, value in {**TINY[network, dims], "bundle_root": str(ZOO / name), "device": "cpu"}.items():
        parser[key] = value
    return parser


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_every_network_takes_a_step_with_every_variant(name, network):
    for variant in [None, *VARIANTS]:
        parser = experiment(name, network, variant)
        model, loss, optimizer = (parser.get_parsed_content(key) for key in ("network", "loss", "optimizer"))
        image = torch.rand(2, 1, *parser["roi_size"])
        label = torch.randint(len(parser["labels"]), image.shape)
        loss(model(image), label).backward()
        optimizer.step()
        assert torch.isfinite(model(image)).all(), variant
        assert parser.get_parsed_content("output_dir").endswith(
            f"/output/{network}_{(variant or 'variant_xattnres').removeprefix('variant_')}"
        )


def test_variants_are_what_their_names_say():
    def parameters(variant: str | None) -> int:
        model = experiment("btcv_ct_segmentation", "unet", variant).get_parsed_content("network")
        return sum(parameter.numel() for parameter in model.parameters())

    counts: dict[str, Any] = {name: parameters(name) for name in [None, *VARIANTS]}
    assert counts["variant_baseline_no_skip"] < counts["variant_no_skip"] < counts[None]
    assert counts["variant_baseline_no_skip"] < counts["variant_baseline"] < counts["variant_encoder_only"]
    assert counts["variant_decoder_only"] < counts[None] < counts["variant_residual"]
    assert counts["variant_spatial_query"] >= counts[None] > counts["variant_fine_sources"]


def test_precision_and_stitching_are_keys(tmp_path):
    name = "msd_hippocampus_mri_segmentation"
    data = SMALL[name].write(tmp_path / "data")
    flow = workflow(name, "train", data, tmp_path, precision="bf16", stitching_device="cpu")
    trainer = flow.parser.get_parsed_content("train#trainer")
    assert trainer.amp and trainer.amp_kwargs == {"dtype": torch.bfloat16}
    assert flow.parser.get_parsed_content("validate#inferer").device == "cpu"
    with pytest.raises(RuntimeError) as caught:
        workflow(name, "train", data, tmp_path, precision="bf61").parser.get_parsed_content("train#trainer")
    assert str(caught.value.__cause__) == "got precision='bf61', expected one of bf16, fp16, fp32"
