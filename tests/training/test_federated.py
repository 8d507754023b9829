"""MONAI's federated client on bundles as they are: two clients, federated averaging."""

from __future__ import annotations

import shutil

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject

from tests.bundles.runs import SMALL, ZOO, overrides

ROUNDS = 6  # of one epoch each; MONAI's client sets max_epochs to those of a round, after which the rate would be 0


def client(name, folder, number, learning_rate, publish=True):
    """A client with a copy of the bundle and data of its own."""
    root = shutil.copytree(ZOO / name, folder / f"client{number}", ignore=shutil.ignore_patterns("output", "data"))
    given = overrides(name, SMALL[name].write(folder / f"data{number}"), root / "output", training=True)
    given |= {
        "bundle_root": str(root),
        "learning_rate": learning_rate,
        "publish": publish,
        "lr_scheduler#total_iters": ROUNDS,
    }
    algorithm = MonaiAlgo(bundle_root=str(root), train_kwargs=dict(given), eval_kwargs=dict(given))
    algorithm.initialize({ExtraItems.CLIENT_NAME: f"client{number}"})
    return algorithm


def average(weights, updates):
    """Federated averaging of what the clients' weights changed by, equal numbers of cases."""
    return {name: value + sum(update[name] for update in updates) / len(updates) for name, value in weights.items()}


@pytest.mark.parametrize("name", ["acdc_mri_segmentation", "msd_hippocampus_mri_segmentation"])
def test_two_clients_train_one_network(name, tmp_path):
    clients = [client(name, tmp_path, number, learning_rate=0.02) for number in range(2)]
    weights = {key: value.clone() for key, value in clients[0].trainer.network.state_dict().items()}
    before = clients[0].evaluate(ExchangeObject(weights=weights)).metrics["val_mean_dice"]
    for _ in range(ROUNDS):
        updates = []
        for one in clients:
            one.train(ExchangeObject(weights=weights))
            updates.append(one.get_weights().weights)
        assert all(any(change.any() for change in update.values()) for update in updates)
        weights = average(weights, [{key: torch.as_tensor(change) for key, change in one.items()} for one in updates])
    assert clients[0].evaluate(ExchangeObject(weights=weights)).metrics["val_mean_dice"] > before
    best = clients[1].get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
    assert best.keys() == weights.keys()
    for one in clients:
        one.finalize()


@pytest.mark.parametrize("publish", [True, False])
def test_every_round_starts_from_the_weights_that_the_server_sends(publish, tmp_path):
    one = client("msd_hippocampus_mri_segmentation", tmp_path, 0, learning_rate=0.0, publish=publish)
    for shift in (0.0, 0.5):
        weights = {key: value + shift for key, value in one.trainer.network.state_dict().items()}
        one.train(ExchangeObject(weights=weights))
        assert all(not torch.as_tensor(change).any() for change in one.get_weights().weights.values())
