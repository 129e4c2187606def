"""The spatio-temporal video autoencoder of Patraucean et al. (2015): a network that moves the last frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from framepred.metrics import cross_entropy, squared_error
from framepred.models.base import Forecast, FramePredictor, check_kernel, check_patch, predicted
from framepred.models.layers.convlstm_cell import ConvLSTMCell
from framepred.models.layers.warp import flow_smoothness, warp
from framepred.precision import without_autocast

ERRORS = {"squared": squared_error, "cross-entropy": cross_entropy}


class SpatioTemporal(FramePredictor):
    """An encoder, a ConvLSTM that tells how things move, and a decoder for the moved features (T §3.2.2).

    The next frame is the last one, moved: its features (half-size maps) are looked up at places that a flow gives, and
    decoded. With the defaults it is the thesis' network (1,035,263 parameters) and loss. The last layer of the flow
    module starts at zero, as in Patraucean's code: at first the features stay where they are.

    Args:
        channels: feature maps of the encoder.
        hidden: channels of the ConvLSTM cell.
        kernel_size: of the convolutions of encoder, cell and decoder.
        flow_channels: maps between the convolutions of the flow module; the thesis has 2.
        flow_kernel: size of its convolutions.
        patch: the cell works at 1/patch of the features' resolution, on patches whose pixels became channels, and its
            output is unfolded for the flow module. 1 for none, as in the thesis; frame sizes must be multiples of twice
            this, and `hidden` of its square.
        cell_kernel: size of the cell's convolutions where it is not that of encoder and decoder.
        loss: "squared" (T Eq. 3.6) or "cross-entropy", the measure the network is judged by.
        smoothness: weight of `flow_smoothness` of the half-size flow, in the loss (T Eq. 3.9).
        peepholes, forget_bias: see `ConvLSTMCell`.
        output_bias: see `ConvLSTM`.
    """

    network = "spatiotemporal"
    adam_layers = ("flow.1", "flow_head", "decoder")

    def __init__(
        self,
        channels: int = 16,
        hidden: int = 64,
        kernel_size: int = 7,
        flow_channels: int = 2,
        flow_kernel: int = 15,
        patch: int = 1,
        cell_kernel: int | None = None,
        loss: str = "squared",
        smoothness: float = 1e-2,
        peepholes: bool = True,
        forget_bias: float = 1.0,
        output_bias: float = -3.0,
    ):
        super().__init__()
        if loss not in ERRORS:
            raise ValueError(f"unknown loss {loss!r}; known: {', '.join(ERRORS)}")
        if not smoothness >= 0:
            raise ValueError(f"smoothness is {smoothness}; expected a weight of 0 or more")
        cell_kernel = cell_kernel or kernel_size
        for name, size in {"kernel_size": kernel_size, "cell_kernel": cell_kernel, "flow_kernel": flow_kernel}.items():
            check_kernel(size, name)
        check_patch(patch)
        if hidden % patch**2:
            raise ValueError(f"hidden is {hidden}; with patch {patch} it must be a multiple of {patch**2}")
        self.error, self.smoothness = ERRORS[loss], smoothness
        self.patch, self.divisor = patch, 2 * patch  # the pooling halves a frame
        self.encoder = nn.Conv2d(1, channels, kernel_size, padding=kernel_size // 2)
        self.cell = ConvLSTMCell(channels * patch**2, hidden, cell_kernel, peepholes, forget_bias)
        self.flow = nn.Sequential(
            nn.Conv2d(hidden // patch**2, flow_channels, flow_kernel, padding=flow_kernel // 2),
            nn.Conv2d(flow_channels, flow_channels, flow_kernel, padding=flow_kernel // 2),
        )
        self.flow_head = nn.Conv2d(flow_channels, 2, 1)
        self.decoder = nn.Conv2d(channels, 1, kernel_size, padding=kernel_size // 2)
        for parameter in self.flow_head.parameters():
            nn.init.zeros_(parameter)
        assert self.decoder.bias is not None
        nn.init.constant_(self.decoder.bias, output_bias)

    def forecast(self, context: Tensor, horizon: int, truth=None, truth_mask=None, from_start=False) -> Forecast:
        logits, flow = self._predict(context, horizon, truth, truth_mask, from_start)
        return Forecast(logits, _each_frame(_to_frame_size, flow))

    def loss(
        self, context: Tensor, target: Tensor, truth=None, truth_mask=None, from_start=False
    ) -> tuple[Tensor, Forecast]:
        logits, flow = self._predict(context, target.shape[1], truth, truth_mask, from_start)
        forecast = Forecast(logits, _each_frame(_to_frame_size, flow))
        prediction = logits if self.error is cross_entropy else forecast.frames
        error = self.error(prediction, predicted(context, target, from_start))
        return (error + self.smoothness * flow_smoothness(flow)).mean(), forecast

    def _predict(self, context: Tensor, horizon: int, truth, truth_mask, from_start: bool) -> tuple[Tensor, Tensor]:
        """Logits (B, T, 1, H, W), and the flow as the network finds it: (B, T, 2, h, w), in pixels of the features."""
        known = context if truth is None or truth_mask is not None else torch.cat([context, truth[:, :-1]], 1)
        features = _each_frame(self.encode, known)
        hidden, state = self.cell.run(F.pixel_unshuffle(features, self.patch))
        last = context.shape[1] - 1  # moving the last context frame gives the first frame to predict
        first = 0 if from_start else last
        flow = _each_frame(self.find_flow, hidden[:, first:])
        logits = _each_frame(self.decode, _each_frame(warp, features[:, first:], flow))
        flows, frames = [flow], [logits]
        for t in range(horizon - (known.shape[1] - last)):
            frame = frames[-1][:, -1].sigmoid()
            if truth_mask is not None:
                frame = torch.where(truth_mask[:, t, None, None, None], truth[:, t], frame)
            feature = self.encode(frame)
            state = self.cell(F.pixel_unshuffle(feature, self.patch), state)
            flow = self.find_flow(state[0])
            flows.append(flow[:, None])
            frames.append(self.decode(warp(feature, flow))[:, None])
        return torch.cat(frames, 1).float(), torch.cat(flows, 1)

    def encode(self, frame: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B C h w"]:
        """The features of a frame: half-size maps with values in (-1, 1)."""
        return F.max_pool2d(self.encoder(frame).tanh(), 2)

    def find_flow(self, hidden: Float[Tensor, "B N hp wp"]) -> Float[Tensor, "B 2 h w"]:
        """The flow in pixels of the features, from the hidden state of the cell."""
        maps = self.flow(F.pixel_shuffle(hidden, self.patch))
        # Under autocast the last layer alone stays in float32: bfloat16 would round a flow of 4 px to 1/32 px.
        with without_autocast(maps.device):
            return self.flow_head(maps.to(self.flow_head.weight.dtype)).float()

    def decode(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 H W"]:
        """The logits of a frame, from half-size features: each pixel is repeated 2×2 before the last convolution."""
        return self.decoder(F.interpolate(features, scale_factor=2, mode="nearest"))


def _each_frame(function, *clips: Float[Tensor, "B T ..."]) -> Float[Tensor, "B T ..."]:
    """Apply a function of (B, …) batches of frames to all frames of (B, T, …) batches of clips at once."""
    return function(*(clip.flatten(0, 1) for clip in clips)).unflatten(0, clips[0].shape[:2])


def _to_frame_size(flow: Float[Tensor, "B 2 h w"]) -> Float[Tensor, "B 2 H W"]:
    """A flow of half-size features for the frame's pixels, as the decoder repeats them; steps are twice as long."""
    return 2 * F.interpolate(flow, scale_factor=2, mode="nearest")
