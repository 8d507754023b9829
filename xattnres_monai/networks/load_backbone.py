"""Warm start: load weights of the plain MONAI class, or of its pretrained encoder, into an XAttnRes network."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from monai.networks.nets.swin_unetr import filter_swinunetr
from torch import Tensor, nn

from xattnres_monai.utils.checkpoint_files import read_checkpoint

__all__ = ["LoadReport", "WrongShape", "load_backbone"]

WRAPPERS = ("network", "model", "state_dict")  # keys under which checkpoints keep the network's state dict
PREFIXES = ("module.", "backbone.", "_orig_mod.")  # of DistributedDataParallel, a wrapping module and torch.compile
OWN = "xattnres."
ENCODER = "swinViT."
SHOWN = 3


class WrongShape(NamedTuple):
    """An entry whose shape in the checkpoint differs from that in the network."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_backbone` did with each parameter and buffer. ``str()`` gives a summary of at most four lines.

    Args:
        matched: names in the network of the entries that were loaded.
        missing: names in the network that the checkpoint lacks. Those under ``xattnres.`` do not count.
        unexpected: keys of the checkpoint that have no place in the network.
        wrong_shape: entries whose shapes differ. The network keeps its own values.

    Example::

        from monai.networks.nets import UNet
        from xattnres_monai import XAttnResUNet, load_backbone

        arguments = dict(spatial_dims=2, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2))
        report = load_backbone(XAttnResUNet(**arguments), UNet(**arguments).state_dict())
        len(report.missing), len(report.unexpected), len(report.wrong_shape)  # (0, 0, 0)
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[WrongShape, ...]

    def __str__(self) -> str:
        counts = (
            f"{len(self.matched)} parameters and buffers matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.wrong_shape)} of another shape"
        )
        shapes = [f"{name} {found} for {expected}" for name, found, expected in self.wrong_shape]
        groups = (
            ("missing (initial values kept)", self.missing),
            ("unexpected (not used)", self.unexpected),
            ("another shape (initial values kept)", shapes),
        )
        return "\n".join([counts, *(f"  {title}: {_first(names)}" for title, names in groups if names)])


def load_backbone(network: nn.Module, checkpoint: str | Path | Mapping[str, Any]) -> LoadReport:
    """Load a checkpoint of the plain MONAI class into a network, and print what did not fit.

    The state dict may stand by itself or under ``network``, ``model`` or ``state_dict``. Its keys may have the prefixes
    ``module.`` and ``backbone.``. The published self-supervised encoders of MONAI's ``SwinUNETR`` fit too. Entries of
    another shape are skipped, such as the last layer for another number of classes. Parameters under ``xattnres.`` keep
    their initial values unless the checkpoint has them.

    Args:
        network: network whose backbone has MONAI's names: any network of this package or of MONAI itself.
        checkpoint: the checkpoint, or the path of one. A file is read with ``weights_only=True``.

    Returns:
        Names of the entries that matched and of those that did not.

    Raises:
        FileNotFoundError: when the file does not exist.
        TypeError: when ``checkpoint`` is neither a path nor a mapping.
        ValueError: when the file holds no state dict, or when less than half of the backbone's parameters match. If the
            checkpoint holds an encoder alone, half of the encoder's parameters count. The network stays as it was.

    Source: MONAI's pretrained SwinUNETR encoders are of arXiv 2111.14791.

    Example::

        import torch
        from monai.networks.nets import UNet
        from xattnres_monai import XAttnResUNet, load_backbone

        arguments = dict(spatial_dims=2, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2))
        plain = UNet(**arguments).eval()
        network = XAttnResUNet(**arguments, xattnres={"fusion": "residual"}).eval()
        load_backbone(network, plain.state_dict())
        image = torch.rand(1, 1, 32, 32)
        torch.equal(network(image), plain(image))  # True: the same network until it is trained further
    """
    source = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    matched, report = _match(_state_dict(checkpoint, source), network.state_dict())
    _check_share(network, report, source)
    network.load_state_dict(matched, strict=False)
    print(f"load_backbone, {source}: {report}")
    return report


def _match(given: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[dict[str, Tensor], LoadReport]:
    """The entries to load, by their names in the network, and the report of all others."""
    # monai.networks.copy_model_state loads at once and reports neither what is missing nor what has another shape
    matched: dict[str, Tensor] = {}
    wrong_shape: dict[str, WrongShape] = {}
    unexpected = []
    for key, value in given.items():
        name = next((name for name in _possible_names(key) if name in expected), None)
        if name is None or name in matched or name in wrong_shape or not isinstance(value, Tensor):
            unexpected.append(key)
        elif value.shape != expected[name].shape:
            wrong_shape[name] = WrongShape(name, tuple(value.shape), tuple(expected[name].shape))
        else:
            matched[name] = value
    placed = matched.keys() | wrong_shape.keys()
    missing = [name for name in expected if name not in placed and not name.startswith(OWN)]
    return matched, LoadReport(tuple(matched), tuple(missing), tuple(unexpected), tuple(wrong_shape.values()))


def _state_dict(checkpoint: str | Path | Mapping[str, Any], source: str) -> dict[str, Any]:
    """The network's state dict inside a checkpoint, with the names and prefixes that it has there."""
    if not isinstance(checkpoint, (str, os.PathLike, Mapping)):
        raise TypeError(f"checkpoint: got {type(checkpoint).__name__}, expected a path or a state dict; give one")
    state = checkpoint if isinstance(checkpoint, Mapping) else read_checkpoint(checkpoint)
    while isinstance(state, Mapping):
        inner = [state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)]
        if not inner:
            break
        state = inner[0]
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        got = f"a mapping of {_first([*map(str, state)])}" if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"{source}: got {got}, expected a state dict; give it as it is or under one of {WRAPPERS}")
    return {str(key): value for key, value in state.items()}


def _possible_names(key: str) -> Iterator[str]:
    """Names that an entry of a checkpoint may have in the network, the likeliest first."""
    yield key
    while prefix := next((prefix for prefix in PREFIXES if key.startswith(prefix)), ""):
        key = key[len(prefix) :]
        yield key
    # model_swinvit.pt has the encoder alone, and the MLP under the names that SwinUNETR.load_from knows
    renamed = re.sub(r"\.mlp\.fc([12])\.", r".mlp.linear\1.", key)
    yield from (renamed, ENCODER + renamed)
    if pair := filter_swinunetr(renamed, None):  # ssl_pretrained_weights.pth: encoder.layers1.0.0.… and encoder.patch_…
        yield pair[0]


def _check_share(network: nn.Module, report: LoadReport, source: str) -> None:
    """Refuse a checkpoint that has too little of the backbone, or of the encoder if it has nothing else."""
    sizes = {name: value.numel() for name, value in network.named_parameters() if not name.startswith(OWN)}
    placed = [name for name in (*report.matched, *(entry.name for entry in report.wrong_shape)) if name in sizes]
    if placed and all(name.startswith(ENCODER) for name in placed):
        # use_v2=True adds convolutions (layers1c …), over half of the encoder; SwinUNETR.load_from reads none of them
        sizes = {name: size for name, size in sizes.items() if re.match(rf"{ENCODER}(?!layers\dc\.)", name)}
    total, matched = sum(sizes.values()), sum(sizes.get(name, 0) for name in report.matched)
    if 2 * matched < total:
        found = [*report.unexpected, *(f"{entry.name} {entry.found}" for entry in report.wrong_shape)]
        lacking = [name for name in report.missing if name in sizes]
        lacking += [f"{entry.name} {entry.expected}" for entry in report.wrong_shape]
        raise ValueError(
            f"{source}: matches {matched} of {total} backbone parameters, expected at least half; found "
            f"{_first(found)}, expected {_first(lacking)}; give a checkpoint of the same MONAI class and arguments"
        )


def _first(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing else") + rest
