"""A training that is killed, told to end, or out of disk space ends, run again, as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from tests.bundles.runs import state, train, workflow

NAME = "msd_hippocampus_mri_segmentation"
EPOCHS, STEPS = 3, 8
RUN = {"train#trainer#max_epochs": EPOCHS, "batch_size": 1, "network_def#dropout": 0.2, "seed": 5}
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.bundles.runs"])


def training(data: Path, output: Path, more: dict[str, Any], disturb: Callable[[Engine], None] | None) -> None:
    """What a process runs."""
    torch.set_num_threads(1)
    flow = workflow(NAME, "train", data, output, **RUN, **more)
    flow.initialize()
    if disturb:
        disturb(flow.parser.get_parsed_content("train#trainer"))
    flow.run()


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def told_to_end(trainer: Engine, step: int) -> None:
    trainer.add_event_handler(Events.ITERATION_STARTED(once=step), send, signal.SIGTERM)


def told_to_end_validating(trainer: Engine, epoch: int) -> None:
    """After the epoch was validated and saved, when the signal is looked at next."""
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=epoch), send, signal.SIGTERM)


def killed(trainer: Engine, step: int, seconds: float) -> None:
    """So many seconds after the step has begun."""
    timer = threading.Timer(seconds, send, (signal.SIGKILL,))
    trainer.add_event_handler(Events.ITERATION_STARTED(once=step), timer.start)


def killed_writing(trainer: Engine, epoch: int) -> None:
    """When the checkpoint of the epoch is in its file, and the file not yet in its place."""

    def fsync(number: int) -> None:
        if Path(f"/proc/self/fd/{number}").resolve().name == "last.part":
            send(signal.SIGKILL)

    trainer.add_event_handler(Events.EPOCH_STARTED(once=epoch), lambda: setattr(os, "fsync", fsync))


@pytest.fixture(scope="module")
def start(decathlon):
    def process(output: Path, disturb: Callable[[Engine], None] | None = None, **more: Any) -> BaseProcess:
        job = PROCESSES.Process(target=training, args=(decathlon, output, more, disturb))
        job.start()
        return job

    return process


def finish(job: BaseProcess) -> int | None:
    job.join(120)
    return job.exitcode


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The output folder of a run that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert finish(start(output)) == 0
    return output


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other))
    return one == other


def assert_as_undisturbed(output: Path, undisturbed: Path) -> None:
    assert state(output)["trainer"]["iteration"] == EPOCHS * STEPS
    assert equal(state(output), state(undisturbed))
    best = [torch.load(path / "checkpoints" / "model.pt", weights_only=True) for path in (output, undisturbed)]
    assert equal(*best)
    assert not list((output / "checkpoints").glob("*.part"))


@pytest.mark.parametrize("point", [*range(3), *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 20))])
def test_a_run_that_is_killed_anywhere_ends_as_one_that_was_not(start, undisturbed, tmp_path, point):
    random = np.random.default_rng(point)
    moment = {"step": int(random.integers(1, EPOCHS * STEPS)), "seconds": random.uniform(0, 0.05)}
    assert finish(start(tmp_path, partial(killed, **moment))) == -signal.SIGKILL
    assert finish(start(tmp_path)) == 0
    assert_as_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_is_killed_while_it_writes_a_checkpoint(start, undisturbed, tmp_path, epoch):
    assert finish(start(tmp_path, partial(killed_writing, epoch=epoch))) == -signal.SIGKILL
    assert (tmp_path / "checkpoints" / "last.part").exists()
    assert (tmp_path / "checkpoints" / "last.pt").exists() == (epoch > 1)
    assert finish(start(tmp_path)) == 0
    assert_as_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize("step", [2 * STEPS, STEPS + 3])
def test_one_that_is_told_to_end_finishes_its_step_and_saves(start, undisturbed, tmp_path, step):
    assert finish(start(tmp_path, partial(told_to_end, step=step))) == 143
    assert state(tmp_path)["trainer"]["iteration"] == step
    assert finish(start(tmp_path)) == 0
    assert_as_undisturbed(tmp_path, undisturbed)


def test_one_that_is_told_to_end_between_epochs_saves_once(start, tmp_path):
    assert finish(start(tmp_path, partial(told_to_end_validating, epoch=2))) == 143
    previous = torch.load(tmp_path / "checkpoints" / "previous.pt", weights_only=True)
    assert [saved["trainer"]["iteration"] for saved in (previous, state(tmp_path))] == [STEPS, 2 * STEPS]


def test_what_is_random_does_not_depend_on_the_workers_or_on_the_cache(start, undisturbed, tmp_path):
    assert finish(start(tmp_path, num_workers=2, cache_rate=0.5)) == 0
    assert_as_undisturbed(tmp_path, undisturbed)


def test_another_seed_is_another_run(start, undisturbed, tmp_path):
    assert finish(start(tmp_path, **{"train#dataset#seed": 6})) == 0
    assert not equal(state(tmp_path)["network"], state(undisturbed)["network"])


@pytest.mark.parametrize("names", [["last.pt"], ["last.pt", "previous.pt"]])
def test_a_truncated_checkpoint_is_named_and_the_one_before_it_used(decathlon, tmp_path, capfd, names):
    train(NAME, decathlon, tmp_path, epochs=2)
    for name in names:
        path = tmp_path / "checkpoints" / name
        path.write_bytes(path.read_bytes()[:-100])
    train(NAME, decathlon, tmp_path, epochs=3)
    printed = capfd.readouterr().out
    for name in names:
        assert f"{tmp_path / 'checkpoints' / name}: not readable as tensors alone" in printed
    assert len(list((tmp_path / "checkpoints").glob("*-2*.pt"))) == len(names)
    assert ("resumed after epoch 1 of 3" in printed) == (len(names) == 1)
    assert state(tmp_path)["trainer"]["iteration"] == 6


def test_a_full_disk_leaves_the_older_checkpoint(decathlon, tmp_path):
    train(NAME, decathlon, tmp_path, epochs=1)
    last = tmp_path / "checkpoints" / "last.pt"
    kept = last.read_bytes()
    last.with_suffix(".part").symlink_to("/dev/full")
    with pytest.raises(RuntimeError) as caught:
        train(NAME, decathlon, tmp_path, epochs=2)
    message = str(caught.value.__cause__)
    assert message.startswith(f"{last} cannot be written ([Errno 28] No space left on device)") and "\n" not in message
    assert last.read_bytes() == kept
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.pt", "model.pt"]


def test_an_output_folder_that_cannot_be_made_is_told_before_the_first_step(decathlon):
    with pytest.raises(RuntimeError) as caught:
        train(NAME, decathlon, Path("/proc/none"), epochs=1, tensorboard=False)
    message = str(caught.value.__cause__)
    assert message.startswith("/proc/none/checkpoints cannot be created")
    assert message.endswith("give another output_dir")


def test_a_loss_that_is_no_number_names_step_images_and_checkpoint(decathlon, tmp_path):
    train(NAME, decathlon, tmp_path, epochs=1)
    kept = (tmp_path / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(RuntimeError) as caught:
        train(NAME, decathlon, tmp_path, epochs=3, loss="$lambda pred, label: pred.sum() * float('nan')")
    message = str(caught.value.__cause__)
    assert message.startswith("the loss is nan at step 3 (epoch 2) for ") and "\n" not in message
    assert message.count("ellipsoids_") == 4 and f"checkpoint is {tmp_path / 'checkpoints' / 'last.pt'}" in message
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() == kept
