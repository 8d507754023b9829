from __future__ import annotations

import pytest

from xattnres_monai import XAttnResOptions


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"stage": "all"}, ValueError, r"unknown option 'stage', expected one of .*; did you mean 'stages'\?"),
        ({"fusion": "replase"}, ValueError, r"option 'fusion': got 'replase', expected .*; did you mean 'replace'\?"),
        ({"skip_connections": "yes"}, ValueError, r"option 'skip_connections': got 'yes', expected one of True, False"),
        ({"recompute": 1}, ValueError, r"option 'recompute': got 1, expected one of True, False"),
        ({"query": None}, ValueError, r"option 'query': got None, expected one of 'static', 'spatial'"),
        ("decoder", TypeError, r"got 'decoder', expected a mapping"),
    ],
)
def test_bad_options_are_one_line_that_helps(options, error, message):
    with pytest.raises(error, match=message) as caught:
        XAttnResOptions.of(options)
    assert "\n" not in str(caught.value)


def test_options_from_nothing_a_mapping_or_options():
    assert XAttnResOptions.of(None) == XAttnResOptions()
    assert XAttnResOptions.of({"query": "spatial"}) == XAttnResOptions(query="spatial")
    assert XAttnResOptions.of(XAttnResOptions(stages="none")).stages == "none"
