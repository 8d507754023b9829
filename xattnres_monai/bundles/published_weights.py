"""The weights that a bundle publishes in ``models/model.pt``, and their SHA-256 in the bundle's metadata."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from xattnres_monai.utils.atomic_write import replace_text
from xattnres_monai.utils.checkpoint_files import save_whole

__all__ = ["PublishBest", "checked", "description"]

FILE = "models/model.pt"


def description(bundle_root: str | Path) -> dict[str, Any]:
    """Return the metadata entry about the published weights; empty if the bundle has none."""
    path = Path(bundle_root) / FILE
    return {"weights": {"file": FILE, "sha256": _digest(path)}} if path.exists() else {}


def checked(bundle_root: str | Path) -> str:
    """Check the SHA-256 of the published weights and return their path, for the key ``checkpoint`` of a config.

    The check is needed because torch does not notice a changed bit in a tensor of a checkpoint. A checkpoint at any
    other path is not checked.

    Args:
        bundle_root: the bundle's folder.

    Returns:
        The path of the file. The file may be missing; whoever loads it reports that. It is not checked if the metadata
        state no SHA-256.

    Raises:
        ValueError: when the SHA-256 of the file differs from the one in the metadata.
    """
    path, metadata = Path(bundle_root) / FILE, _metadata(bundle_root)
    stated = json.loads(metadata.read_text()).get("weights", {}).get("sha256") if metadata.exists() else None
    if stated and path.exists() and _digest(path) != stated:
        raise ValueError(
            f"{path} has SHA-256 {_digest(path)}, expected {stated} as in the metadata; restore it, or move your own "
            "weights to another folder and give their path as checkpoint"
        )
    return str(path)


class PublishBest:
    """MONAI handler that publishes the best network so far after a validation.

    When the key metric is the highest that the handler has seen, it saves the network's state dict as
    ``models/model.pt`` and writes the file's SHA-256 into the metadata. A file is replaced as a whole or not at all.

    Args:
        bundle_root: the bundle's folder.
        network: the network in training.
    """

    def __init__(self, bundle_root: str | Path, network: nn.Module) -> None:
        self.bundle_root = Path(bundle_root)
        self.network = network
        self.best = float("-inf")

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator of the validation. With several processes, attach it in one of them only."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._publish)

    def _publish(self, evaluator: Engine) -> None:
        metric = evaluator.state.metrics[evaluator.state.key_metric_name]
        if metric > self.best:
            self.best = metric
            save_whole(self.network.state_dict(), self.bundle_root / FILE)
            path = _metadata(self.bundle_root)
            content = {**json.loads(path.read_text()), **description(self.bundle_root)}
            replace_text(path, json.dumps(content, indent=4) + "\n")


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _metadata(bundle_root: str | Path) -> Path:
    return Path(bundle_root) / "configs" / "metadata.json"
