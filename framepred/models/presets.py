"""Which networks there are, in which sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from framepred.models.base import FramePredictor
from framepred.models.convlstm import ConvLSTM
from framepred.models.predrnn import PredRNN
from framepred.models.simvp import SimVP
from framepred.models.spatiotemporal import SpatioTemporal
from framepred.models.vpn import VideoPixelNetwork

# The thesis' three, and two that came after it, to compare them with.
NETWORKS: dict[str, type[FramePredictor]] = {
    cls.network: cls for cls in (ConvLSTM, SpatioTemporal, VideoPixelNetwork, PredRNN, SimVP)
}

# "thesis" is the network of the thesis, "paper" that of the paper's authors; "book" is small enough to train on two CPU
# cores; "tiny" is for tests.
PRESETS: dict[str, dict[str, Mapping[str, Any]]] = {
    "convlstm": {
        "thesis": {},
        "patched": {"patch": 4},
        "book": {"patch": 8, "kernel_size": 3},
        "tiny": {"patch": 4, "hidden": (16, 8, 8), "kernel_size": 3},
    },
    "spatiotemporal": {
        "thesis": {},
        "book": {
            "hidden": 128,
            "kernel_size": 5,
            "flow_channels": 16,
            "flow_kernel": 7,
            "patch": 4,
            "cell_kernel": 3,
            "loss": "cross-entropy",
        },
        "tiny": {
            "channels": 4,
            "hidden": 8,
            "kernel_size": 3,
            "flow_channels": 4,
            "flow_kernel": 3,
            "loss": "cross-entropy",
        },
    },
    "vpn": {
        "thesis": {},
        "compact": {"encoder_channels": 64, "hidden_channels": 64, "decoder_channels": 64, "head_channels": 192},
        "book": {
            "encoder_channels": 64,
            "encoder_blocks": 2,
            "hidden_channels": 128,
            "kernel_size": 3,
            "patch": 8,
            "decoder_channels": 16,
            "decoder_blocks": 2,
            "head_channels": 16,
        },
        "tiny": {
            "encoder_channels": 8,
            "encoder_blocks": 2,
            "hidden_channels": 16,
            "kernel_size": 3,
            "patch": 4,
            "decoder_channels": 8,
            "decoder_blocks": 2,
            "head_channels": 8,
        },
    },
    "predrnn": {
        "paper": {},
        "book": {"layers": 3, "hidden": 64, "kernel_size": 3, "patch": 8},
        "tiny": {"layers": 2, "hidden": 8, "kernel_size": 3},
    },
    "simvp": {
        "book": {},
        "tiny": {"channels": 4, "hidden": 16, "blocks": 1, "kernel_size": 3},
    },
}


def build(network: str, preset: str = "thesis", seed: int = 0, **changes: Any) -> FramePredictor:
    """Build a network with fresh weights.

    Args:
        network: "convlstm", "spatiotemporal", "vpn", "predrnn" or "simvp".
        preset: "thesis" (predrnn: "paper", simvp: none), "book" or "tiny", and "patched" (convlstm) or "compact" (vpn).
        seed: fixes the initial weights, which are drawn on the CPU; the global random state is neither used nor changed.
        changes: arguments of the network's class that differ from the preset's.
    """
    if network not in NETWORKS:
        raise ValueError(f"unknown network {network!r}; known: {', '.join(NETWORKS)}")
    if preset not in PRESETS[network]:
        raise ValueError(f"unknown preset {preset!r} of {network}; known: {', '.join(PRESETS[network])}")
    with torch.random.fork_rng(devices=[]):  # by default it would open every GPU
        torch.default_generator.manual_seed(seed)
        return NETWORKS[network](**{**PRESETS[network][preset], **changes})
