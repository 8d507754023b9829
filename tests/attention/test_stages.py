from __future__ import annotations

import pytest
import torch
from torch import nn

from xattnres_monai import CrossStageAttention, FeatureHistory, Stage, attention_maps, cross_stage_attentions


def test_stages_select_who_aggregates():
    stages = [Stage("a", 4, "encoder"), Stage("b", 8, "encoder"), Stage("c", 16, "encoder"), Stage("d", 8, "decoder")]

    def aggregating(selection):
        attentions = cross_stage_attentions(2, stages, {"stages": selection})
        assert list(attentions) == ["a", "b", "c", "d"]
        return [name for name, module in attentions.items() if isinstance(module, CrossStageAttention)]

    assert aggregating("all") == ["c", "d"]
    assert aggregating("encoder") == ["c"]
    assert aggregating("decoder") == ["d"]
    assert aggregating("none") == []


@pytest.mark.parametrize(
    "sources, skips, expected", [("unskipped", True, [1, 2]), ("all", True, [0, 1, 2]), ("unskipped", False, [0, 1, 2])]
)
def test_a_stage_does_not_draw_on_what_its_skip_connection_brings(sources, skips, expected):
    stages = [Stage(name, 4, "encoder") for name in "abcd"]
    stages.append(Stage("e", 4, "decoder", skip="a"))
    attentions = cross_stage_attentions(2, stages, {"sources": sources, "skip_connections": skips})
    assert attentions["e"].sources == expected and attentions["d"].sources == [0, 1]


def test_maps_of_a_network_of_ones_own():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList(nn.Conv2d(i, o, 3, 2, 1) for i, o in [(1, 4), (4, 8), (8, 8)])
            self.last = CrossStageAttention(2, 8, [4])

        def forward(self, x):
            history = FeatureHistory()
            for stage in self.stages[:2]:
                x = stage(x)
                history.append(x)
            return self.stages[2](self.last(x, history))

    network, image = Network(), torch.rand(1, 1, 16, 16)
    maps = attention_maps(network, image)
    assert {name: tuple(weights.shape) for name, weights in maps.items()} == {"last": (1, 2, 4, 4)}
    network.compile(backend="eager")
    network(image)
    assert torch.equal(attention_maps(network, image)["last"], maps["last"])


def test_maps_leave_a_network_in_training_as_it_was():
    network, image = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5)), torch.rand(2, 1, 4, 4)
    attention_maps(network, image)
    assert network.training and network[1].training and network[0].num_batches_tracked == 0
