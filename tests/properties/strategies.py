"""What the properties are tried on: options, grids and values that nobody chose."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from xattnres_monai import XAttnResOptions

SEEDS = st.integers(0, 2**16)


def fewer(part: int) -> settings:
    """For what is slow: a fraction of the profile's examples."""
    return settings(max_examples=settings.default.max_examples // part)


def options(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Values of the options of these names, or of all of them."""
    hints = get_type_hints(XAttnResOptions)
    chosen = names or [field.name for field in fields(XAttnResOptions)]
    return st.fixed_dictionaries({name: st.sampled_from(get_args(hints[name]) or (True, False)) for name in chosen})


def sizes(spatial_dims: int, largest: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Grids of 1 … ``largest`` voxels an axis."""
    return st.tuples(*[st.integers(1, largest)] * spatial_dims)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
