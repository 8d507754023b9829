from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib.image import imread
from monai.data import MetaTensor

from tests.bundles.runs import ZOO
from xattnres_monai.evaluation.overlays import COLOURS, SaveOverlayd, overlay, upright


def _volume(size=(20, 24, 16)):
    image = np.random.default_rng(0).random(size)
    classes = np.zeros(size, dtype=np.uint8)
    classes[5:12, 6:14, 4:9] = 1
    classes[7:10, 8:11, 5:7] = 2
    return image, classes


@pytest.mark.parametrize("size, panels", [((20, 24, 16), 3), ((20, 24), 1)])
@pytest.mark.parametrize("with_label", [True, False])
def test_one_panel_a_plane(size, panels, with_label):
    image = np.random.default_rng(0).random(size)
    classes = (image > 0.6).astype(np.uint8)
    assert len(overlay(image, classes, classes if with_label else None).axes) == panels


def test_shows_the_sections_with_most_of_the_segmentation():
    image, classes = _volume()
    figure = overlay(image, classes)
    axial = figure.axes[0].images[1].get_array()
    assert axial.shape == (24, 20)
    assert np.ma.count(axial) == np.count_nonzero(classes, axis=(0, 1)).max()


def test_voxels_are_drawn_in_their_proportions():
    image, classes = _volume()
    aspects = [axes.get_aspect() for axes in overlay(image, classes, spacing=(1.0, 2.0, 5.0)).axes]
    assert aspects == [2.0, 5.0, 2.5]  # axial y/x, coronal z/x, sagittal z/y


def test_empty_and_constant_cases_are_drawn_too():
    figure = overlay(np.zeros((8, 8, 8)), np.zeros((8, 8, 8), dtype=np.uint8), np.zeros((8, 8, 8), dtype=np.uint8))
    assert [np.ma.count(axes.images[1].get_array()) for axes in figure.axes] == [0, 0, 0]


def test_writes_a_picture_a_case_in_the_colours_of_the_classes(tmp_path):
    image, classes = _volume()
    meta = {"filename_or_obj": "/data/case_3.nii.gz"}
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0]))
    data = {
        "image": MetaTensor(torch.tensor(image)[None], affine=affine, meta=meta),
        "pred": MetaTensor(torch.tensor(classes)[None]),
    }
    save = SaveOverlayd("pred", str(tmp_path / "overlays"), {"0": "background", "1": "outer", "2": "inner"})
    assert save(data).keys() == data.keys()
    picture = imread(tmp_path / "overlays" / "case_3.png")[..., :3]
    # the legend's patch is the class colour at its opacity over white
    wanted = 0.6 * np.array(colors.to_rgb(COLOURS[0])) + 0.4
    assert (np.abs(picture - wanted).max(-1) < 0.02).any()


def test_the_organs_of_a_data_set_have_colours_of_their_own():
    classes = max(len(json.loads(path.read_text())["labels"]) - 1 for path in ZOO.glob("*/configs/train.json"))
    assert classes == 15 and len(set(COLOURS[:classes])) == classes


def test_pictures_stand_upright_and_volumes_in_ras():
    picture = torch.zeros(1, 6, 4)
    picture[:, :, 0] = 1  # the first row of a PNG, as MONAI's reader gives it: (1, width, height)
    assert upright(MetaTensor(picture))[0, :, -1].eq(1).all()  # drawn from below, so the last row is on top
    volume = torch.zeros(1, 3, 4, 5)
    volume[0, 0] = 1  # the rightmost slab, where the first axis runs to the left
    left = MetaTensor(volume, affine=torch.diag(torch.tensor([-1.0, 1, 1, 1])))
    assert upright(left)[0, -1].eq(1).all()
