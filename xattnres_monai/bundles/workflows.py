"""Select config files of a bundle by name, and build MONAI's workflow from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

__all__ = ["overlays", "workflow"]


def overlays(bundle: Path, variant: str, network: str = "") -> tuple[str, ...]:
    """Return the names of the config files that turn a bundle into a variant of it.

    Args:
        bundle: the bundle's folder.
        variant: ``xattnres`` for the bundle as it is, or the X of ``configs/variant_X.json``.
        network: the X of ``configs/network_X.json``; empty for the bundle's own network.

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
    """Build MONAI's workflow from a bundle's config files, given by name; ``inference`` or ``train`` comes first."""
    folder = bundle / "configs"
    return ConfigWorkflow(
        config_file=[str(folder / f"{name}.json") for name in configs],
        meta_file=str(folder / "metadata.json"),
        logging_file=str(folder / "logging.conf"),
        workflow_type=configs[0],
        **{"bundle_root": str(bundle), **overrides},
    )
