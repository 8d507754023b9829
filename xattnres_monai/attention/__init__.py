"""The mechanism: a history of all stage outputs, and the attention that builds each stage's input from it."""

from xattnres_monai.attention.cross_stage import CrossStageAttention
from xattnres_monai.attention.functional import depth_attention, depth_weights, nested_attention
from xattnres_monai.attention.history import FeatureHistory
from xattnres_monai.attention.options import XAttnResOptions
from xattnres_monai.attention.stages import Stage, attention_maps, cross_stage_attentions

__all__ = [
    "CrossStageAttention",
    "FeatureHistory",
    "Stage",
    "XAttnResOptions",
    "attention_maps",
    "cross_stage_attentions",
    "depth_attention",
    "depth_weights",
    "nested_attention",
]
