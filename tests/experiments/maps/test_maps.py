from __future__ import annotations

import csv
import math
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from tests.bundles.runs import SMALL, ZOO, train, weights
from tests.data.layouts import write_msd
from tests.networks.case import awaken
from xattnres_monai import XAttnResUNet
from xattnres_monai.experiments.maps.command import maps
from xattnres_monai.experiments.maps.routing import Routing, attending, sources_of, without_source

NAME = "msd_hippocampus_mri_segmentation"


def unet(dims, **options):
    torch.manual_seed(0)
    return awaken(XAttnResUNet(dims, 1, 2, (4, 8, 16), (2, 2), xattnres=options)).eval()


@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_windows_are_stitched_to_the_maps_of_the_whole_and_summed_up(dims):
    network = unet(dims)
    image = torch.rand(1, 1, *[16] * dims)
    chosen = [("decoder0", "encoder1"), ("bottleneck", "encoder0")]
    routing = Routing(network, chosen)
    stitched = SlidingWindowInferer(roi_size=[16] * dims, sw_batch_size=2)(image, routing)
    whole = network.attention_maps(image)
    assert stitched.shape == (1, 2, *image.shape[2:])
    expected = torch.nn.functional.interpolate(
        whole["decoder0"][:, 1:2], size=image.shape[2:], mode="bilinear" if dims == 2 else "trilinear"
    )
    torch.testing.assert_close(stitched[:, :1], expected)
    for stage, shares in routing.shares().items():
        torch.testing.assert_close(shares, whole[stage].transpose(0, 1).flatten(1).mean(1).tolist())
        assert sum(shares) == pytest.approx(1)
        assert 0 < routing.entropy()[stage] <= 1


def test_a_new_network_weighs_all_sources_alike():
    network = XAttnResUNet(2, 1, 2, (4, 8, 16), (2, 2)).eval()
    routing = Routing(network, [("decoder0", "encoder0")])
    with torch.no_grad():
        routing(torch.rand(1, 1, 16, 16))
    assert routing.entropy()["decoder0"] == pytest.approx(1) and routing.shares()["decoder0"] == [0.25] * 4


@pytest.mark.parametrize("options", [{}, {"query": "spatial", "fusion": "residual"}, {"form": "literal"}], ids=str)
@torch.no_grad()
def test_without_a_source_the_stage_takes_what_the_others_give(options):
    """What that is, the tests of the attention say."""
    network = unet(2, **options)
    attention = network.xattnres["decoder0"]
    seen = {}
    with attention.register_forward_hook(lambda module, inputs, result: seen.update(inputs=inputs, plain=result)):
        network(torch.rand(2, 1, 16, 16))
    for index, source in enumerate(sources_of(network, "decoder0")):
        expected = attention.without(*seen["inputs"], index)
        assert not torch.allclose(expected, seen["plain"])
        with without_source(network, "decoder0", source):
            assert torch.equal(attention(*seen["inputs"]), expected)
    torch.testing.assert_close(attention(*seen["inputs"]), seen["plain"])


def test_a_source_is_left_out_of_a_compiled_network_too():
    network, image = unet(2), torch.rand(1, 1, 32, 32)
    with without_source(network, "decoder0", "encoder0"):
        expected = network(image)
    network.compile(backend="eager")
    assert not torch.allclose(network(image), expected)
    with without_source(network, "decoder0", "encoder0"):
        torch.testing.assert_close(network(image), expected)


def test_stages_and_sources_have_the_names_of_the_network():
    network = unet(2, stages="decoder")
    assert attending(network) == ["decoder1", "decoder0"]
    assert sources_of(network, "decoder0") == ["encoder0", "encoder1", "bottleneck", "decoder1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Arguments for the command: a bundle with weights, and a case of its data set."""
    root = tmp_path_factory.mktemp("maps")
    data = write_msd(root / "data")
    train(NAME, data, root / "run", epochs=1)
    image = sorted((data / "imagesTr").glob("*.nii.gz"))[0]
    given = {
        "bundle": str(ZOO / NAME),
        "image": str(image),
        "checkpoint": weights(root / "run"),
        "dataset_dir": str(data),
    }
    return {**given, **SMALL[NAME].overrides, "num_workers": 0}, data / "labelsTr" / image.name


def test_the_command_writes_maps_on_the_grid_of_the_image(trained, tmp_path):
    given, label = trained
    text = maps(**given, label=str(label), ablate=True, output=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    image = nibabel.load(given["image"])
    total = np.zeros(image.shape)
    for path in folder.glob("decoder0_*.nii.gz"):
        written = nibabel.load(path)
        assert written.shape == image.shape
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)
        total += written.get_fdata()
    np.testing.assert_allclose(total[2:-2, 2:-2, 2:-2], 1, atol=1e-3)  # beyond, resampling meets the border
    with (folder / "shares.csv").open(newline="") as file:
        shares = list(csv.DictReader(file))
    stages = {row["stage"] for row in shares}
    assert len(stages) == 5
    assert math.isclose(sum(float(row["value"]) for row in shares if row["stage"] == "decoder0"), 1, abs_tol=1e-4)
    for name in ("shares.png", "decoder0.png", "ablation.png", "ablation_dice.png"):
        assert (folder / name).stat().st_size > 10_000
    with (folder / "ablation.csv").open(newline="") as file:
        ablation = [float(row["value"]) for row in csv.DictReader(file)]
    assert len(ablation) == len(shares) and min(ablation) < 1
    assert "not how much the result depends on it" in text and "Change of Dice with the label" in text


def test_the_command_line_shows_one_stage_and_some_sources(trained, tmp_path):
    given, _ = trained
    more = {"output": str(tmp_path), "stage": "decoder0", "source": "encoder0,bottleneck"}
    options = [f"--{key}={value}" for key, value in {**given, **more}.items() if key not in ("bundle", "image")]
    command = [sys.executable, "-m", "xattnres_monai", "maps", given["bundle"], given["image"], *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr[-2000:]
    written = {path.name for path in tmp_path.glob("*/*.nii.gz")}
    assert written == {"decoder0_encoder0.nii.gz", "decoder0_bottleneck.nii.gz"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": "absent.nii.gz"}, "got absent.nii.gz, expected the file of the image"),
        ({"label": "absent.nii.gz"}, "got absent.nii.gz, expected the file of the label"),
        ({"checkpoint": "absent.pt"}, "got no file absent.pt, expected a checkpoint; train the network, or give one"),
        ({"stage": "decoder9"}, "got the stage decoder9, expected one of encoder2, bottleneck, decoder2, decoder1"),
        ({"source": "decoder0"}, "got the source decoder0, expected one of encoder0, encoder1"),
        ({"variant": "baselin"}, "got the variant baselin, expected one of baseline"),
    ],
)
def test_what_cannot_be_shown_is_an_error_of_one_line(trained, tmp_path, wrong, message):
    given, _ = trained
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        maps(**{**given, **wrong, "output": str(tmp_path)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda label: label * 255, r"has the values 255, 510, expected whole numbers 0 … 2; map them to the classes"),
        (lambda label: label[:-1], r"has shape \(.*\), expected that of its image, .*; resample the label"),
    ],
)
def test_a_label_that_cannot_be_used_is_refused_as_in_training(trained, tmp_path, change, message):
    given, label = trained
    stored = nibabel.load(label)
    wrong = tmp_path / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(change(np.asarray(stored.dataobj).astype(np.int16)), stored.affine), wrong)
    with pytest.raises(ValueError, match=message):
        maps(**given, label=str(wrong), ablate=True, output=str(tmp_path))
