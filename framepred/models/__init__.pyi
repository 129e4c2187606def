from . import (
    base as base,
    convlstm as convlstm,
    flops as flops,
    layers as layers,
    predrnn as predrnn,
    presets as presets,
    sampling as sampling,
    simvp as simvp,
    spatiotemporal as spatiotemporal,
    vpn as vpn,
)
from .base import Forecast as Forecast, FramePredictor as FramePredictor
from .convlstm import ConvLSTM as ConvLSTM
from .layers.convlstm_cell import ConvLSTMCell as ConvLSTMCell
from .predrnn import PredRNN as PredRNN
from .presets import NETWORKS as NETWORKS, PRESETS as PRESETS, build as build
from .simvp import SimVP as SimVP
from .spatiotemporal import SpatioTemporal as SpatioTemporal
from .vpn import VideoPixelNetwork as VideoPixelNetwork
