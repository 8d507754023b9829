"""The options of XAttnRes, checked as they come in: a config is written by hand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

__all__ = ["XAttnResOptions"]


@dataclass(frozen=True)
class XAttnResOptions:
    """What a network does with its feature history.

    Args:
        form: ``nested``, sources are weighed on their own grids (docs/mechanism.md), or ``literal``, the equation of
            arXiv 2604.03297 as it stands, which costs much more.
        stages: which stages aggregate; the history always holds all of them. The bottleneck counts as encoder.
        sources: which earlier outputs a stage draws on: ``all`` (the paper), or ``unskipped``, all but the one that its
            own skip connection brings as it is: cheaper.
        query: ``static``, learned vectors (arXiv 2604.03297), or ``spatial``, which adds to them a 1×1 convolution of
            the current feature, divided by √C (the authors' later "spatial adaptive pseudo-query").
        fusion: ``replace``, the aggregate is the stage's input (the paper's equation), or ``residual``, it is added to
            the current feature with a learned factor γ that starts at 0.
        skip_connections: whether the network keeps its own skips.
        placement: where a decoder stage that starts by up-sampling aggregates: at its ``input``, on the coarse grid
            (cheap), or where it would ``merge`` its skip, on the fine grid. By default ``input`` with skips, and
            ``merge`` without, since the finest encoder output reaches the network's output on no other way then. In a
            UNet, which merges before it up-samples, both are one place.
        recompute: compute the projected sources again in the backward pass instead of keeping them (less memory, more
            time).

    Raises:
        ValueError: for a value that is not among those named.
    """

    form: Literal["nested", "literal"] = "nested"
    stages: Literal["all", "encoder", "decoder", "none"] = "all"
    sources: Literal["all", "unskipped"] = "all"
    query: Literal["static", "spatial"] = "static"
    fusion: Literal["replace", "residual"] = "replace"
    skip_connections: bool = True
    placement: Literal["input", "merge", None] = None
    recompute: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value, allowed = getattr(self, name), get_args(hint) or (True, False)
            if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in allowed):
                raise ValueError(f"xattnres option {name!r}: got {value!r}, expected {_one_of(allowed, value)}")

    @property
    def merges(self) -> bool:
        """Whether decoder stages aggregate where they would merge their skip."""
        return self.placement == "merge" or (self.placement is None and not self.skip_connections)

    @classmethod
    def of(cls, options: XAttnResOptions | Mapping[str, Any] | None) -> XAttnResOptions:
        """Options from a plain mapping (as a JSON config gives it); ``None`` stands for the defaults.

        Raises:
            ValueError: for an option that does not exist or a value that is not allowed.
            TypeError: for anything that is not a mapping.
        """
        if isinstance(options, cls):
            return options
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"xattnres: got {options!r}, expected a mapping, e.g. {{'stages': 'decoder'}}, or None")
        names = [field.name for field in fields(cls)]
        for name in options or {}:
            if name not in names:
                raise ValueError(f"xattnres got the unknown option {name!r}, expected {_one_of(names, name)}")
        return cls(**(options or {}))


def _one_of(choices: Sequence[object], got: object) -> str:
    close = difflib.get_close_matches(str(got), [str(choice) for choice in choices], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return "one of " + ", ".join(map(repr, choices)) + hint
