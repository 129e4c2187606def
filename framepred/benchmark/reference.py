"""Reference implementations, written as one writes them first: what speed is measured against, and a second opinion.

`plain` gives a network frame by frame: every step encodes its frame, convolves input and state together, and decodes if
the prediction is asked for. Same weights, same numbers; nothing is done for several frames at once, nothing masked is left
out, and no thought is given to memory layouts.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from framepred.data.glyphs import GLYPH_SIZE
from framepred.metrics import cross_entropy
from framepred.models import ConvLSTM, Forecast, FramePredictor, SpatioTemporal, VideoPixelNetwork
from framepred.models.layers.convlstm_cell import ConvLSTMCell, State
from framepred.models.layers.masked import MaskedConv2d, causal_mask
from framepred.models.layers.warp import flow_smoothness, warp
from framepred.models.sampling import Rule
from framepred.models.vpn import Decoder


class PlainCell(nn.Module):
    """A ConvLSTM cell with one convolution of input and state together, which starts from a state of zeros."""

    def __init__(self, cell: ConvLSTMCell):
        super().__init__()
        x, h = cell.input_to_gates, cell.state_to_gates
        self.conv = nn.Conv2d(x.in_channels + h.in_channels, x.out_channels, x.kernel_size, padding=x.padding)  # type: ignore[arg-type]
        self.peephole = copy.deepcopy(cell.peephole)
        with torch.no_grad():
            self.conv.weight.copy_(torch.cat([x.weight, h.weight], 1))
            self.conv.bias.copy_(x.bias)  # type: ignore[union-attr, arg-type]

    def forward(self, x: Float[Tensor, "B M H W"], state: State | None) -> State:
        if state is None:
            h = c = x.new_zeros(len(x), self.conv.out_channels // 4, *x.shape[2:])
        else:
            h, c = state
        i, f, g, o = self.conv(torch.cat([x, h], 1)).chunk(4, 1)
        if self.peephole is not None:
            i, f = i + self.peephole[0] * c, f + self.peephole[1] * c
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        if self.peephole is not None:
            o = o + self.peephole[2] * c
        return torch.sigmoid(o) * torch.tanh(c), c


class PlainMaskedConv2d(nn.Module):
    """A masked convolution that multiplies its whole kernel with the mask."""

    mask: Tensor

    def __init__(self, conv: MaskedConv2d):
        super().__init__()
        self.weight, self.bias, self.dilation = conv.weight, conv.bias, conv.dilation
        self.register_buffer("mask", causal_mask(conv.kernel_size, conv.kind))

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O H W"]:
        padding = self.dilation * (self.mask.shape[0] // 2)
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=padding, dilation=self.dilation)


class Plain(nn.Module):
    """A network, frame by frame; `loss` is that of the network whose weights it has a copy of, in rollout."""

    network: Any

    def __init__(self, model: FramePredictor):
        super().__init__()
        self.network = copy.deepcopy(model)
        for module in list(self.network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, ConvLSTMCell):
                    setattr(module, name, PlainCell(child))
                elif isinstance(child, MaskedConv2d):
                    setattr(module, name, PlainMaskedConv2d(child))

    def forward(self, context: Float[Tensor, "B C 1 H W"], horizon: int) -> list[dict[str, Tensor]]:
        """What is computed for each of the frames to predict: its "logits", and what else the loss needs."""
        steps: list[dict[str, Tensor]] = []
        state = None
        for t in range(context.shape[1] + horizon - 1):
            frame = context[:, t] if t < context.shape[1] else steps[-1]["logits"].sigmoid()
            state = self.read(frame, state)
            if t >= context.shape[1] - 1:
                steps.append(self.predict(frame, state))
        return steps

    def read(self, frame: Float[Tensor, "B 1 H W"], state: Any) -> Any:
        """The state after a frame."""
        raise NotImplementedError

    def predict(self, frame: Float[Tensor, "B 1 H W"], state: Any) -> dict[str, Tensor]:
        """The frame after that, from this frame and the state after it."""
        raise NotImplementedError

    def loss(self, context: Tensor, target: Tensor) -> tuple[Tensor, Forecast]:
        """What training minimises, and the forecast it was computed from; as `FramePredictor.loss`."""
        logits = torch.stack([step["logits"] for step in self(context, target.shape[1])], 1)
        return cross_entropy(logits, target).mean(), Forecast(logits)


class PlainConvLSTM(Plain):
    def read(self, frame, state):
        x, states = F.pixel_unshuffle(frame, self.network.patch), []
        for k, cell in enumerate(self.network.cells):
            states.append(cell(x, state and state[k]))
            x = states[-1][0]
        return states

    def predict(self, frame, state):
        hidden = torch.cat([h for h, _ in state], 1)
        return {"logits": F.pixel_shuffle(self.network.head(hidden), self.network.patch)}


class PlainSpatioTemporal(Plain):
    def read(self, frame, state):
        features = self.network.encode(frame)
        return features, self.network.cell(F.pixel_unshuffle(features, self.network.patch), state and state[1])

    def predict(self, frame, state):
        features, (hidden, _) = state
        flow = self.network.flow_head(self.network.flow(F.pixel_shuffle(hidden, self.network.patch)))
        return {"logits": self.network.decode(warp(features, flow)), "flow": flow}

    def loss(self, context, target):
        steps = self(context, target.shape[1])
        logits, flow = (torch.stack([step[name] for step in steps], 1) for name in ("logits", "flow"))
        prediction = logits if self.network.error is cross_entropy else logits.sigmoid()
        loss = self.network.error(prediction, target) + self.network.smoothness * flow_smoothness(flow)
        return loss.mean(), Forecast(logits)


class PlainVideoPixelNetwork(Plain):
    def read(self, frame, state):
        return self.network.cell(self.network.encoder(F.pixel_unshuffle(frame, self.network.patch)), state)

    def predict(self, frame, state):
        hidden = F.pixel_shuffle(state[0], self.network.patch)
        return {"logits": self.decode(hidden, torch.zeros_like(frame)), "hidden": hidden}

    def decode(self, hidden: Tensor, frame: Tensor) -> Tensor:
        """The decoder, with one first convolution of the context and the frame together."""
        decoder = self.network.decoder
        masked = decoder.frame
        kernel = torch.cat([decoder.context.weight, masked.weight * masked.mask], 1)
        h = F.conv2d(torch.cat([hidden, frame], 1), kernel, decoder.context.bias, padding=kernel.shape[-1] // 2)
        for block in decoder.blocks:
            h = block(h)
        for layer in decoder.head:
            h = layer(F.relu(h))
        return h

    def loss(self, context, target):
        steps, network = self(context, target.shape[1]), self.network
        logits = torch.stack([step["logits"] for step in steps], 1)
        current = torch.stack([self.decode(step["hidden"], f) for step, f in zip(steps, target.unbind(1))], 1)
        zero_frame, current_frame = (cross_entropy(x, target).mean() for x in (logits, current))
        return network.zero_weight * zero_frame + network.current_weight * current_frame, Forecast(logits)


# --- pixels ----------------------------------------------------------------------------------------------------------


def render_plainly(
    glyphs: UInt8[Tensor, "B G 28 28"], positions: Int64[Tensor, "B T G 2"], size: int
) -> UInt8[Tensor, "B T 1 H W"]:
    """What `data.rendering.render` gives: a pixel shows the brightest of the glyphs on it, and is black under none."""
    B, T, G, _ = positions.shape
    frames, images, places = np.zeros((B, T, 1, size, size), np.uint8), glyphs.numpy(), positions.numpy()
    for b, t, g in np.ndindex(B, T, G):
        x, y = places[b, t, g]
        window = frames[b, t, 0, y : y + GLYPH_SIZE, x : x + GLYPH_SIZE]
        np.maximum(window, images[b, g], out=window)
    return torch.from_numpy(frames)


@torch.no_grad()
def draw_plainly(
    decoder: Decoder, share: Float[Tensor, "B C H W"], rule: Rule, n_pixels: int | None = None
) -> tuple[Float[Tensor, "B 1 H W"], Float[Tensor, "B 1 H W"]]:
    """What `Decoder.draw` gives: logits and frame, pixel after pixel, by a pass of the whole decoder for each.

    Args:
        decoder, share, rule: as in `models.sampling.draw`.
        n_pixels: stop after so many; all, unless told. The others are 0.
    """
    B, _, H, W = share.shape
    logits, frame = share.new_zeros(2, B, 1, H, W)
    for i in range(H * W if n_pixels is None else n_pixels):
        y, x = torch.tensor([i // W]), torch.tensor([i % W])
        logits[:, 0, y, x] = decoder(share, frame)[:, 0, y, x]
        frame[:, 0, y, x] = rule(logits[:, 0, y, x], y, x)
    return logits, frame


# --- which network is written how ------------------------------------------------------------------------------------

_PLAIN: dict[type, type[Plain]] = {
    ConvLSTM: PlainConvLSTM,
    SpatioTemporal: PlainSpatioTemporal,
    VideoPixelNetwork: PlainVideoPixelNetwork,
}


def plain(model: FramePredictor) -> Plain:
    """The network written plainly, with a copy of its weights.

    Raises:
        ValueError: for a predictor that is none of the three networks.
    """
    if type(model) not in _PLAIN:
        raise ValueError(
            f"{type(model).__name__} is not written plainly; known: {', '.join(c.__name__ for c in _PLAIN)}"
        )
    return _PLAIN[type(model)](model)
