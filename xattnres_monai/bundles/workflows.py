"""A bundle's config files by their names, and MONAI's workflow of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

__all__ = ["overlays", "workflow"]


def overlays(bundle: Path, variant: str, network: str = "") -> tuple[str, ...]:
    """Names of the config files that make a bundle's experiment.

    Args:
        bundle: the bundle's folder.
        variant: ``xattnres`` for the bundle as it is, else the X of ``configs/variant_X.json``.
        network: the X of ``configs/network_X.json``; empty for the bundle's own.

    Raises:
        ValueError: when the bundle has no such file.
    """
    names = [f"network_{network}"] * bool(network) + [f"variant_{variant}"] * (variant != "xattnres")
    for name in names:
        if not (bundle / "configs" / f"{name}.json").exists():
            kind, _, given = name.partition("_")
            known = sorted(path.stem.removeprefix(f"{kind}_") for path in (bundle / "configs").glob(f"{kind}_*.json"))
            raise ValueError(f"got the {kind} {given}, expected one of {', '.join(known)}")
    return tuple(names)


def workflow(bundle: Path, configs: Sequence[str], **overrides: Any) -> ConfigWorkflow:
    """MONAI's workflow of config files of a bundle, by their names; ``inference`` or ``train`` comes first."""
    folder = bundle / "configs"
    return ConfigWorkflow(
        config_file=[str(folder / f"{name}.json") for name in configs],
        meta_file=str(folder / "metadata.json"),
        logging_file=str(folder / "logging.conf"),
        workflow_type=configs[0],
        **{"bundle_root": str(bundle), **overrides},
    )
