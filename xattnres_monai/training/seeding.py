"""Randomness of a training run as a function of seed, epoch and case, which a resumed run shares."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
from ignite import distributed
from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.data import CacheDataset, DataLoader

__all__ = ["SeedHandler", "SeededCacheDataset"]


def _mixed(*numbers: int) -> int:
    """One seed of 32 bits from several numbers, without the overlaps of their sums; zeros at the end do not count."""
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


class SeedHandler:
    """MONAI handler of a trainer that seeds every epoch and step anew, and starts a resumed epoch where it was left.

    The order of the cases depends on seed and epoch, what the network draws (dropout) on seed, step and process. In an
    epoch that was left after some of its steps, their batches are made again and passed over.

    Args:
        loader: the trainer's, of a ``SeededCacheDataset``, whose seed is taken.

    Raises:
        ValueError: when an epoch of the trainer is not one pass through the loader.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self._seed_step)

    def _seed_epoch(self, trainer: Engine) -> None:
        steps_of_loader = len(self.loader)
        if trainer.state.epoch_length != steps_of_loader:
            raise ValueError(
                f"got epoch_length={trainer.state.epoch_length}, expected {steps_of_loader}, the batches that there "
                "are: what is random depends on the epoch; change batch_size or max_epochs"
            )
        dataset = self.loader.dataset
        dataset.epoch = trainer.state.epoch
        manual_seed(_mixed(dataset.seed, dataset.epoch))
        steps = trainer.state.iteration % trainer.state.epoch_length
        trainer.state.dataloader = islice(self.loader, steps, None) if steps else self.loader

    def _seed_step(self, trainer: Engine) -> None:
        # a fourth number: three are the seed of a case
        torch.manual_seed(_mixed(self.loader.dataset.seed, trainer.state.iteration, distributed.get_rank(), 1))
