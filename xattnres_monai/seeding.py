"""Randomness of a training run as a function of seed, epoch and case, which a resumed run shares."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.utils import set_determinism

__all__ = ["EpochSeed", "SeededCacheDataset"]


def _mixed(*numbers: int) -> int:
    """One seed of 32 bits from several numbers, without the overlaps of their sums."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class SeededCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset``, whose random transforms depend on seed, epoch and index alone.

    MONAI's go on from whatever was drawn before in the same process, so that they depend on the number of workers and
    cannot be resumed.

    Args:
        *args: of ``CacheDataset``.
        seed: of the run.
        **kwargs: of ``CacheDataset``; the transform is a ``Compose``.

    Attributes:
        epoch: to be set before an epoch's batches are made; workers take it with them when they start.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.epoch = 0

    def _transform(self, index: int) -> Any:
        self.transform.set_random_state(seed=_mixed(self.seed, self.epoch, index))
        return super()._transform(index)


class EpochSeed:
    """MONAI handler of a trainer that seeds every epoch anew, and starts a resumed one where it was left.

    In an epoch that was left after some of its steps, their batches are made again and passed over.

    Args:
        loader: the trainer's, of a ``SeededCacheDataset``.
        seed: of the run.
        rank: of the process; what the network draws (dropout) differs between processes.
    """

    def __init__(self, loader: DataLoader, seed: int, rank: int = 0) -> None:
        self.loader = loader
        self.seed = seed
        self.rank = rank

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, trainer: Engine) -> None:
        """Seed the epoch that starts."""
        set_determinism(_mixed(self.seed, trainer.state.epoch, self.rank))
        self.loader.dataset.epoch = trainer.state.epoch
        steps = trainer.state.iteration % trainer.state.epoch_length
        trainer.state.dataloader = islice(self.loader, steps, None) if steps else self.loader


def random_state() -> dict[str, Any]:
    """States of torch's generators, of the CPU and of every GPU."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def restore(state: dict[str, Any]) -> None:
    """Set torch's generators to states of ``random_state``, as far as there are GPUs."""
    torch.set_rng_state(state["cpu"])
    for device, generator in zip(range(torch.cuda.device_count()), state["cuda"]):
        torch.cuda.set_rng_state(generator, device)
