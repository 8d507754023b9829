"""The best pair of global thresholds: a baseline that a network for brain tissue has to beat.

Background lies below the first threshold, grey matter between the two and white matter above the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd
from numpy.typing import NDArray

from xattnres_monai.data.folds import training_cases, validation_cases

__all__ = ["fit_thresholds", "threshold_dice", "validation_dice"]

CANDIDATES = 1025  # quantiles of the pooled intensities, so that a threshold is off by at most 0.1 % of the voxels
CLASSES = 3


def fit_thresholds(cases: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Find the pair of thresholds with the best mean Dice of grey and white matter over the cases.

    The function compares all pairs of candidate thresholds. The candidates are quantiles of the intensities of all
    cases.

    Args:
        cases: dictionaries with the paths ``image`` and ``label`` (0 background, 1 grey matter, 2 white matter).

    Returns:
        ``(t1, t2)`` with t1 < t2, in the units of the network's input (z-score over all voxels). Grey matter has
        ``t1 <= intensity < t2``, and white matter has ``t2 <= intensity``.

    Raises:
        ValueError: when there is no case, or all intensities are equal.
    """
    if not cases:
        raise ValueError("got no cases, expected at least 1 to fit thresholds on")
    voxels = [_load(case) for case in cases]
    pooled = np.concatenate([image.numpy().ravel() for image, _ in voxels])
    candidates = np.unique(np.quantile(pooled, np.linspace(0, 1, CANDIDATES)))
    if len(candidates) < 2:
        raise ValueError(f"all intensities are equal in {len(cases)} cases, expected images to fit thresholds on")
    dice = sum(_pair_dice(image.numpy(), label.numpy(), candidates) for image, label in voxels)
    dice = np.where(np.triu(np.ones_like(dice), k=1) > 0, dice, -1)
    lower, upper = np.unravel_index(np.argmax(dice), dice.shape)
    return float(candidates[lower]), float(candidates[upper])


def threshold_dice(cases: Sequence[Mapping[str, Any]], thresholds: tuple[float, float]) -> NDArray[np.float64]:
    """Compute the Dice of grey and white matter that a pair of thresholds reaches on each case.

    Args:
        cases: as for :func:`fit_thresholds`.
        thresholds: ``(t1, t2)``, as :func:`fit_thresholds` returns them.

    Returns:
        Array of shape (cases, 2), values 0 … 1. A value is NaN if the label has no voxel of the tissue.

    Raises:
        ValueError: when ``t1 < t2`` does not hold.
    """
    if not thresholds[0] < thresholds[1]:
        raise ValueError(f"got thresholds={thresholds}, expected the first below the second")
    dice = np.empty((len(cases), CLASSES - 1))
    for row, case in enumerate(cases):
        image, label = _load(case)
        predicted = torch.bucketize(image, torch.tensor(thresholds, dtype=image.dtype), right=True)
        prediction, truth = (one_hot(tissue[None], CLASSES) for tissue in (predicted, label))
        dice[row] = compute_dice(prediction, truth, include_background=False)[0].numpy()
    return dice


def validation_dice(cases: list[dict[str, Any]], fold: int) -> NDArray[np.float64]:
    """Fit thresholds on the training cases of ``fold``, and return their Dice on its validation cases."""
    return threshold_dice(validation_cases(cases, fold), fit_thresholds(training_cases(cases, fold)))


def _load(case: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Load the image as the network gets it, and the label, each of shape (1, H, W, D)."""
    load = Compose(
        [
            LoadImaged(keys=["image", "label"], ensure_channel_first=True),
            NormalizeIntensityd(keys="image", channel_wise=True),
        ]
    )
    loaded = load({key: case[key] for key in ("image", "label")})
    return loaded["image"].as_tensor(), loaded["label"].as_tensor()


def _pair_dice(
    image: NDArray[np.float32], label: NDArray[np.float32], candidates: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the mean Dice of both tissues in one case for every pair of candidates, indexed by [first, second]."""
    bins = np.searchsorted(candidates, image.ravel(), side="right")
    joint = np.zeros((CLASSES, len(candidates) + 1))
    np.add.at(joint, (label.ravel().astype(np.intp), bins), 1)
    grey, white = joint[1:].sum(axis=1)
    # number of voxels below each candidate: of all classes, of grey matter, of white matter
    below = np.cumsum(joint, axis=1)[:, :-1]
    below_all, below_grey, below_white = below.sum(axis=0), below[1], below[2]
    # Dice is twice the overlap over the sum of both volumes; it is 0 if class and prediction are both empty
    between = below_all[None, :] - below_all[:, None] + grey
    grey_dice = 2 * (below_grey[None, :] - below_grey[:, None]) / np.maximum(between, 1)
    white_dice = 2 * (white - below_white) / np.maximum(joint.sum() - below_all + white, 1)
    return (grey_dice + white_dice[None, :]) / 2
