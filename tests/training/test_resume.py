"""What a training run leaves behind and how it goes on from there; one bundle stands for all."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.bundles.runs import ZOO, overrides, state, train, workflow
from xattnres_monai.bundles import workflows

NAME = "msd_hippocampus_mri_segmentation"
LINEAR = {"_target_": "torch.optim.lr_scheduler.LinearLR", "optimizer": "@optimizer"}
SGD = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.02}


@pytest.fixture(scope="module")
def output(decathlon, tmp_path_factory):
    """The output folder of a short training."""
    folder = tmp_path_factory.mktemp("output")
    train(NAME, decathlon, folder, epochs=4)
    return folder


def test_training_learns_and_leaves_both_checkpoints(output):
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["last.pt", "model.pt", "previous.pt"]
    assert state(output)["trainer"]["epoch_length"] == 2
    assert state(output)["best_metric"] > 0.3
    weights = torch.load(output / "checkpoints" / "model.pt", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
    assert any(key.startswith("xattnres.") for key in weights)


def test_training_resumes_where_it_was_and_can_be_prolonged(decathlon, tmp_path, capsys):
    train(NAME, decathlon, tmp_path, epochs=1)
    assert state(tmp_path)["optimizer"]["param_groups"][0]["lr"] == 0
    name = "model.0.conv.unit0.conv.weight"
    before = state(tmp_path)["network"][name]
    train(NAME, decathlon, tmp_path, epochs=2)
    assert "resumed after epoch 1 of 2" in capsys.readouterr().out
    assert state(tmp_path)["trainer"]["iteration"] == 4
    assert state(tmp_path)["optimizer"]["state"][0]["step"] == 4
    # at the rate that a run of two epochs has in its second; that of one epoch has come to 0
    assert not torch.allclose(state(tmp_path)["network"][name], before)


@pytest.mark.parametrize(
    "schedule, rate",
    [
        ({"lr_scheduler#total_iters": 4}, 0.02 * (1 / 4) ** 0.9),
        ({"lr_scheduler": {**LINEAR, "start_factor": 0.1, "total_iters": 5}}, 0.02 * (0.1 + 0.9 * 3 / 5)),
    ],
)
def test_the_learning_rate_is_that_of_a_run_that_was_never_broken_off(decathlon, tmp_path, schedule, rate):
    for output, epochs in (("broken", (1, 3)), ("whole", (3,))):
        for stop in epochs:
            train(NAME, decathlon, tmp_path / output, epochs=stop, **schedule)
    rates = [state(tmp_path / output)["optimizer"]["param_groups"][0]["lr"] for output in ("broken", "whole")]
    assert rates[0] == rates[1] == pytest.approx(rate)


def test_a_run_goes_on_with_the_settings_of_its_optimizer(decathlon, tmp_path):
    train(NAME, decathlon, tmp_path, epochs=1)
    train(NAME, decathlon, tmp_path, epochs=2, **{"optimizer#weight_decay": 0.5})
    (group,) = state(tmp_path)["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.5 and state(tmp_path)["optimizer"]["state"][0]["step"] == 4


def test_the_best_network_survives_a_resumed_run_that_only_gets_worse(decathlon, tmp_path):
    train(NAME, decathlon, tmp_path, epochs=3)
    best = state(tmp_path)["best_metric"], (tmp_path / "checkpoints" / "model.pt").read_bytes()
    train(NAME, decathlon, tmp_path, epochs=5, learning_rate=10.0)  # a wild one: no later epoch can be the best
    assert state(tmp_path)["optimizer"]["param_groups"][0]["initial_lr"] == 10.0
    assert (state(tmp_path)["best_metric"], (tmp_path / "checkpoints" / "model.pt").read_bytes()) == best


def test_a_finished_training_is_not_trained_again(output, decathlon):
    before = (output / "checkpoints" / "model.pt").read_bytes()
    train(NAME, decathlon, output, epochs=4)
    assert (output / "checkpoints" / "model.pt").read_bytes() == before
    assert state(output)["trainer"]["iteration"] == 8


@pytest.mark.parametrize(
    "change, words",
    [
        ({}, "the checkpoint was saved after 4 epochs, more than max_epochs=1"),
        ({"xattnres": {"stages": "none"}}, "the checkpoint belongs to another network"),
        ({"optimizer": SGD}, "the checkpoint belongs to another kind of optimizer"),
        ({"fold": 1}, "the checkpoint belongs to a run with fold 0, this one has 1"),
        ({"seed": 7}, "the checkpoint belongs to a run with seed 0, this one has 7"),
        ({"batch_size": 8}, "a run with steps an epoch 2, this one has 1"),
    ],
)
def test_a_checkpoint_of_another_run_is_kept_and_the_run_starts_anew(
    output, decathlon, tmp_path, capsys, change, words
):
    shutil.copytree(output / "checkpoints", tmp_path / "checkpoints")
    kept = sorted(path.read_bytes() for path in (output / "checkpoints").iterdir())
    flow = train(NAME, decathlon, tmp_path, epochs=1, **change)
    printed = capsys.readouterr().out
    assert words in printed and "kept as last-" in printed
    files = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert len(files) == 5 and {"last.pt", "model.pt"} < files
    aside = [tmp_path / "checkpoints" / file for file in files - {"last.pt", "model.pt"}]
    assert sorted(path.read_bytes() for path in aside) == kept
    steps = flow.parser.get_parsed_content("train#trainer").state.epoch_length
    assert state(tmp_path)["trainer"]["iteration"] == steps


@pytest.mark.parametrize("content", [{}, [], {"network": {}, "optimizer": {}, "trainer": {}}])
def test_a_file_that_is_no_checkpoint_of_a_run_is_kept(decathlon, tmp_path, capsys, content):
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "last.pt")
    train(NAME, decathlon, tmp_path, epochs=1)
    assert "the checkpoint is not one that a run can resume from; " in capsys.readouterr().out
    assert state(tmp_path)["trainer"]["iteration"] == 2


def test_a_run_that_publishes_replaces_the_weights_of_the_bundle_and_resumes_nothing(decathlon, tmp_path):
    root = shutil.copytree(ZOO / NAME / "configs", tmp_path / NAME / "configs").parent
    given = {**overrides(NAME, decathlon, root / "output", training=True), "publish": True}
    published = []
    for _ in range(2):
        flow = workflows.workflow(root, ["train"], **given, seed=len(published), **{"train#trainer#max_epochs": 1})
        flow.initialize()
        flow.run()
        published.append(torch.load(root / "models" / "model.pt", weights_only=True))
        assert [path.name for path in (root / "models").iterdir()] == ["model.pt"]
        assert not (root / "output" / "checkpoints").exists()
    assert published[0].keys() == published[1].keys()
    assert not all(torch.equal(published[0][name], published[1][name]) for name in published[0])


def test_weights_that_are_not_finite_are_not_saved(decathlon, tmp_path):
    """The loss of the epoch's only step is finite, its gradient is not."""
    train(NAME, decathlon, tmp_path, epochs=1, batch_size=8)
    kept = (tmp_path / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(RuntimeError) as caught:
        root = "$lambda pred, label: (pred.mean() * 0).sqrt()"
        train(NAME, decathlon, tmp_path, epochs=2, batch_size=8, loss=root)
    message = str(caught.value.__cause__)
    assert "are NaN or infinite after step" in message and "\n" not in message
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() == kept


def test_an_empty_scaler_as_of_a_cpu_in_half_precision_is_none(decathlon, tmp_path, capsys):
    train(NAME, decathlon, tmp_path, epochs=1)
    path = tmp_path / "checkpoints" / "last.pt"
    torch.save({**state(tmp_path), "scaler": {}}, path)
    flow = workflow(NAME, "train", decathlon, tmp_path, **{"train#trainer#max_epochs": 2})
    flow.initialize()
    trainer = flow.parser.get_parsed_content("train#trainer")
    trainer.scaler = torch.amp.GradScaler("cpu")  # an enabled one, as on a GPU, refuses an empty state
    flow.run()
    assert "resumed after epoch 1 of 2" in capsys.readouterr().out


def test_an_epoch_is_one_pass_through_the_cases(decathlon, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        train(NAME, decathlon, tmp_path, epochs=1, **{"train#trainer#epoch_length": 12})
    assert str(caught.value.__cause__).startswith("got epoch_length=12, expected 2, the number of batches")
