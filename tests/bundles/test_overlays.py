"""What varies by config alone."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.runs import NAMES, SMALL, SWIN_UNETR, UNET_2D, UNET_3D, ZOO, workflow

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


TRANSFORMERS = ("unetr", "swin_unetr")  # with every variant they take minutes
STEPS = [
    pytest.param("unet", [None, *VARIANTS], id="unet"),
    *(pytest.param(network, [None, "variant_no_skip"], id=network) for network in TRANSFORMERS),
    *(pytest.param(network, VARIANTS, id=f"{network}-all", marks=pytest.mark.slow) for network in TRANSFORMERS),
]


@pytest.mark.parametrize("network, variants", STEPS)
@pytest.mark.parametrize("name", NAMES)
def test_every_network_takes_a_step_with_every_variant(name, network, variants):
    for variant in variants:
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
    assert counts["variant_spatial_query"] > counts[None] > counts["variant_literal"]


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


@pytest.mark.parametrize("configs", ["train", "train evaluate"])
def test_labels_go_to_where_patches_are_put_together(tmp_path, configs):
    """On another device than the network's, which here only the meta device can be."""
    name = "msd_hippocampus_mri_segmentation"
    data = SMALL[name].write(tmp_path / "data")
    parser = workflow(name, configs, data, tmp_path, stitching_device="meta", checkpoint="").parser
    first = parser.get_parsed_content("validate#postprocessing").transforms[0]
    case = {"image": torch.zeros(1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 4), "pred": torch.zeros(3, 4, 4, 4)}
    assert first(case)["label"].device.type == "meta"


@pytest.mark.parametrize("normal", [(0, 0, 1), (-0.75, 0.45, -0.48), (-0.55, 0.6, -0.58)])
def test_slices_of_an_oblique_short_axis_stay_slices(tmp_path, normal):
    data = SMALL["acdc_mri_segmentation"].write(tmp_path / "data")
    third = np.array(normal) / np.linalg.norm(normal)
    first = np.cross(third, (0, 1, 0))
    first /= np.linalg.norm(first)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([1.5 * first, 1.5 * np.cross(third, first), 10 * third], axis=1)
    path = tmp_path / "stack.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((40, 36, 5)), affine), path)
    flow = workflow("acdc_mri_segmentation", "inference", data, tmp_path, images=[str(path)])
    assert flow.parser.get_parsed_content("dataset")[0]["image"].shape == (1, 40, 36, 5)
