"""The options of XAttnRes. They are checked when they are read, because configs are written by hand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

__all__ = ["XAttnResOptions"]


@dataclass(frozen=True)
class XAttnResOptions:
    """Says how a network uses its feature history.

    Args:
        form: ``nested`` weighs the sources on their own grids (docs/mechanism.md). ``literal`` is the equation of
            arXiv 2604.03297 as it stands, which costs much more.
        stages: which stages attend to the history: ``all``, ``encoder``, ``decoder`` or ``none``. The bottleneck counts
            as encoder. The history always holds the outputs of all stages.
        sources: which earlier outputs a stage draws on. ``all`` is the paper's choice. ``unskipped`` leaves out the
            output that the stage's own skip connection brings unchanged, which is cheaper.
        query: ``static`` uses learned vectors (arXiv 2604.03297). ``spatial`` adds to them a 1×1 convolution of the
            current feature, divided by √C (the authors' later "spatial adaptive pseudo-query").
        fusion: ``replace`` takes the result of the attention as the stage's input (the paper's equation). ``residual``
            adds the result to the current feature, times a learned factor γ that starts at 0.
        skip_connections: whether the network keeps its own skip connections.
        placement: where a decoder stage attends if it starts with up-sampling. ``input`` is before the up-sampling, on
            the coarse grid (cheap). ``merge`` is where the stage would merge its skip connection, on the fine grid.
            ``None`` means ``input`` with skip connections and ``merge`` without them, because the finest encoder output
            could not reach the network's output otherwise. In a UNet, which merges before it up-samples, both are the
            same place.
        recompute: whether the backward pass computes the projected sources again instead of keeping them. This takes
            less memory and more time.

    Raises:
        ValueError: when an option has a value that is not allowed.

    Source:
        arXiv 2604.03297 (XAttnRes), the cross-stage form of Attention Residuals (arXiv 2603.15031). The options
        ``form="literal"``, ``sources="all"``, ``query="static"`` and ``fusion="replace"`` give the paper's equation::

            V_k = P_k(R(h_k))        a = softmax_k q · (g ⊙ V_k / rms(V_k))        y = Σ_k a_k V_k

    Example::

        from xattnres_monai import XAttnResOptions

        options = XAttnResOptions.of({"stages": "decoder", "fusion": "residual"})
        options.stages, options.query  # ('decoder', 'static')
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
        """Whether decoder stages attend where they would merge their skip connection."""
        return self.placement == "merge" or (self.placement is None and not self.skip_connections)

    @classmethod
    def of(cls, options: XAttnResOptions | Mapping[str, Any] | None) -> XAttnResOptions:
        """Read options from a plain mapping, as a JSON config gives it.

        Args:
            options: a mapping from names to values, options (returned as they are), or ``None`` for the defaults.

        Returns:
            The options.

        Raises:
            ValueError: when an option does not exist, or when its value is not allowed.
            TypeError: when ``options`` is of another type.
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
