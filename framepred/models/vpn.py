"""The Video Pixel Network of Kalchbrenner et al. (2016)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from framepred.metrics import cross_entropy
from framepred.models import sampling
from framepred.models.base import Forecast, FramePredictor, check_patch, predicted
from framepred.models.layers.convlstm_cell import ConvLSTMCell, State
from framepred.models.layers.masked import MaskedConv2d, ResidualBlock
from framepred.precision import without_autocast


class Decoder(nn.Module):
    """A PixelCNN: the logit of each pixel from the context and the pixels before it in its own frame (T Fig. 3.4).

    Its first layer is one convolution of the context and the frame together, of which only the frame is masked. A
    convolution of concatenated channels is the sum of two convolutions, and so it is written here: the context's share
    is the same for every pass over a frame, and a frame of zeros adds nothing to it.
    """

    def __init__(self, context_channels: int, channels: int, n_blocks: int, head_channels: int, kernel_size: int = 7):
        super().__init__()
        self.context = nn.Conv2d(context_channels, channels, kernel_size, padding=kernel_size // 2)
        self.frame = MaskedConv2d(1, channels, kernel_size, mask="A", bias=False)
        self.blocks = nn.ModuleList(ResidualBlock(channels, mask="B") for _ in range(n_blocks))
        widths = [channels, head_channels, head_channels, 1]
        self.head = nn.ModuleList(nn.Conv2d(n_in, n_out, 1) for n_in, n_out in pairwise(widths))

    def forward(
        self, share: Float[Tensor, "B C H W"], frame: Float[Tensor, "B 1 H W"] | None = None
    ) -> Float[Tensor, "B 1 H W"]:
        """Logits, given the context's share of the first layer and the current frame (None: a frame of zeros)."""
        h = share if frame is None else share + self.frame(frame)
        for block in self.blocks:
            h = block(h)
        for layer in self.head:  # the thesis names no activation here; a ReLU before each, as in the PixelCNN
            h = layer(F.relu(h))
        return h

    def draw(self, share: Float[Tensor, "B C H W"], rule: sampling.Rule) -> tuple[Tensor, Tensor]:
        """The logits and the frame that `rule` draws pixel by pixel, with cached activations."""
        return sampling.draw(self.frame, cast(list, list(self.blocks)), cast(list, list(self.head)), share, rule)


class VideoPixelNetwork(FramePredictor):
    """A network that models a frame pixel by pixel, each given the frames and the pixels before it (T §3.2.3).

    An encoder of residual blocks reads each frame, a ConvLSTM remembers, and a masked decoder predicts. With the
    defaults it is the thesis' network (38,257,665 parameters). It predicts in three ways:

    - with a frame of zeros in place of the current one: `forward`, one parallel pass, as the thesis tests it;
    - with the true current frame: `teacher_forced`, one parallel pass, the likelihood that Kalchbrenner et al. report;
    - with its own pixels, one after the other: `sample` and `mean_field`.

    Training runs the decoder in the first two ways and adds the losses (T §3.4.1).

    Args:
        encoder_channels, encoder_blocks: width and depth of the encoder.
        dilations: of the encoder's 3×3 convolutions, repeated as often as there are blocks. (1, 2, 4, 8) with 8 blocks
            is the dilated encoder of Kalchbrenner et al.
        hidden_channels, kernel_size: of the ConvLSTM.
        decoder_channels, decoder_blocks, head_channels: width and depth of the decoder, width of its last layers.
        patch: the encoder and the ConvLSTM work at 1/patch of the resolution, on patches whose pixels became channels,
            and their output is unfolded to full resolution for the decoder. 1 for none; frame sizes must be multiples
            of it and `hidden_channels` of its square.
        zero_weight, current_weight: of the losses of the passes with a frame of zeros and with the current frame. With
            current_weight 0 the second pass is not run, and the taps that read the current frame do not train.
        checkpointing: in training, keep only what passes from frame to frame and compute the rest again when gradients
            need it: a third more time for a small part of the memory.
        peepholes, forget_bias: see `ConvLSTMCell`.
        output_bias: start of the last bias, the log-odds of a dark page.
    """

    network = "vpn"
    adam_layers = ("decoder.frame", "decoder.head")

    def __init__(
        self,
        encoder_channels: int = 256,
        encoder_blocks: int = 16,
        dilations: Sequence[int] = (1,),
        hidden_channels: int = 256,
        kernel_size: int = 7,
        decoder_channels: int = 256,
        decoder_blocks: int = 24,
        head_channels: int = 768,
        patch: int = 1,
        zero_weight: float = 1.0,
        current_weight: float = 0.2,
        checkpointing: bool = False,
        peepholes: bool = True,
        forget_bias: float = 1.0,
        output_bias: float = -3.0,
    ):
        super().__init__()
        check_patch(patch)
        if hidden_channels % patch**2:
            raise ValueError(
                f"hidden_channels is {hidden_channels}; with patch {patch} it must be a multiple of {patch**2}"
            )
        if not dilations:
            raise ValueError("dilations is empty; expected at least one, such as (1,)")
        if zero_weight < 0 or current_weight < 0 or zero_weight + current_weight == 0:
            raise ValueError(
                f"zero_weight is {zero_weight} and current_weight {current_weight}; expected 0 or more, not both 0"
            )
        self.patch = self.divisor = patch
        self.zero_weight, self.current_weight, self.checkpointing = zero_weight, current_weight, checkpointing
        self.encoder = nn.Sequential(
            nn.Conv2d(patch**2, encoder_channels, 7, padding=3),
            *(ResidualBlock(encoder_channels, dilation=dilations[k % len(dilations)]) for k in range(encoder_blocks)),
        )
        self.cell = ConvLSTMCell(encoder_channels, hidden_channels, kernel_size, peepholes, forget_bias)
        self.decoder = Decoder(hidden_channels // patch**2, decoder_channels, decoder_blocks, head_channels)
        nn.init.constant_(cast(Tensor, self.decoder.head[-1].bias), output_bias)

    def forecast(self, context: Tensor, horizon: int, truth=None, truth_mask=None, from_start=False) -> Forecast:
        return self._zero_frame(context, horizon, truth, truth_mask, from_start)[0]

    def loss(
        self, context: Tensor, target: Tensor, truth=None, truth_mask=None, from_start=False
    ) -> tuple[Tensor, Forecast]:
        """The weighted sum of the nats with a frame of zeros and with the current frame; the forecast is the former's."""
        forecast, shares = self._zero_frame(context, target.shape[1], truth, truth_mask, from_start)
        target = predicted(context, target, from_start)
        total = torch.zeros((), device=target.device)
        if self.zero_weight:
            total = total + self.zero_weight * cross_entropy(forecast.logits, target).mean()
        if self.current_weight:
            current = self._decode(shares, target)
            total = total + self.current_weight * cross_entropy(current, target).mean()
        return total, forecast

    def teacher_forced(self, context: Float[Tensor, "B C 1 H W"], target: Float[Tensor, "B T 1 H W"]) -> Forecast:
        """Every pixel of `target`, given all true frames before its own and the true pixels before it in its own.

        The chain rule makes the nats of this forecast, summed, the negative log-likelihood of the target (T Eq. 3.13).
        """
        self.check(context, target.shape[1], target)
        hidden, _ = self.read(torch.cat([context, target[:, :-1]], 1))
        shares = [self.share(h) for h in hidden.unbind(1)[context.shape[1] - 1 :]]
        return Forecast(self._decode(shares, target))

    @torch.no_grad()
    def sample(
        self, context: Float[Tensor, "B C 1 H W"], horizon: int = 10, seed: int = 0
    ) -> Float[Tensor, "B {horizon} 1 H W"]:
        """Frames drawn pixel by pixel, each fed back: a pixel is white with the probability that the network gives it.

        The cross-entropy reads a grey target as the chance of a white pixel, so that is what is drawn: black or white,
        although the frames the network was trained on are grey. The draws are those of `seed`, on any device.
        """
        self.check(context, horizon)
        draws = torch.rand((len(context), horizon, *context.shape[3:]), generator=torch.Generator().manual_seed(seed))
        draws = draws.to(context.device)

        def white_or_black(t: int) -> sampling.Rule:
            return lambda logits, y, x: (draws[:, t, y, x] < logits.sigmoid()).to(logits.dtype)

        return self._draw(context, horizon, white_or_black)[1]

    @torch.no_grad()
    def mean_field(self, context: Float[Tensor, "B C 1 H W"], horizon: int = 10) -> Forecast:
        """Frames predicted pixel by pixel, each pixel's probability fed back as if it were its grey value."""
        self.check(context, horizon)
        return Forecast(self._draw(context, horizon, lambda t: lambda logits, y, x: logits.sigmoid())[0])

    def _zero_frame(
        self, context: Tensor, horizon: int, truth, truth_mask, from_start: bool
    ) -> tuple[Forecast, list[Tensor]]:
        """The forecast of `forecast`, and the context's shares that it was decoded from."""
        known = context if truth is None or truth_mask is not None else torch.cat([context, truth[:, :-1]], 1)
        hidden, state = self.read(known)
        last = context.shape[1] - 1  # the last context frame predicts the first frame
        first = 0 if from_start else last
        upcoming = list(hidden.unbind(1)[first:])
        shares: list[Tensor] = []
        logits: list[Tensor] = []
        for t in range(first - last, horizon):  # frames of the context, if any are predicted, have numbers below 0
            if len(logits) == len(upcoming):
                frame = logits[-1].sigmoid()
                if truth_mask is not None:
                    frame = torch.where(truth_mask[:, t - 1, None, None, None], truth[:, t - 1], frame)
                hidden, state = self.read(frame[:, None], state)
                upcoming.append(hidden[:, 0])
            shares.append(self.share(upcoming[len(logits)]))
            logits.append(self._run(self.decoder, shares[-1]))
        return Forecast(torch.stack(logits, 1).float()), shares

    def read(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Encode frames and run the ConvLSTM over them: its hidden states (B, T, N, h, w) and its last state."""
        hidden = []
        for part in frames.split(1, 1) if self.checkpointing else [frames]:
            h, state = self._run(self._advance, part, state)
            hidden.append(h)
        assert state is not None
        return torch.cat(hidden, 1), state

    def _advance(self, frames: Tensor, state: State | None) -> tuple[Tensor, State]:
        x = self.encoder[0](F.pixel_unshuffle(frames.flatten(0, 1), self.patch))
        x = self.encoder[1:](_channels_last(x))
        return self.cell.run(x.unflatten(0, frames.shape[:2]), state)

    def share(self, hidden: Tensor) -> Tensor:
        """What the frames before contribute to the decoder's first layer."""
        return self.decoder.context(_channels_last(F.pixel_shuffle(hidden, self.patch)))

    def _decode(self, shares: list[Tensor], frames: Tensor) -> Tensor:
        """The logits of given frames, each pixel's from the pixels before it."""
        logits = [self._run(self.decoder, share, frame) for share, frame in zip(shares, frames.unbind(1))]
        return torch.stack(logits, 1).float()

    def _draw(self, context: Tensor, horizon: int, rule) -> tuple[Tensor, Tensor]:
        """The logits and the frames drawn by the rules of each time step."""
        logits, frames, state = [], [], None
        known = context
        for t in range(horizon):
            hidden, state = self.read(known, state)
            with without_autocast(context.device):  # small products: float32 costs next to nothing
                share = self.share(hidden[:, -1].to(self.decoder.context.weight.dtype))
                logit, frame = self.decoder.draw(share, rule(t))
            logits.append(logit)
            frames.append(frame)
            known = frame[:, None]
        return torch.stack(logits, 1).float(), torch.stack(frames, 1).float()

    def _run(self, function, *args):
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)


def _channels_last(x: Tensor) -> Tensor:
    # In this memory layout a 1×1 convolution is one matrix product; all layers after keep it. Twice as fast and more.
    return x.contiguous(memory_format=torch.channels_last)
