"""Moving pictures by a flow: the sampler of the spatio-temporal network, and the penalty that keeps a flow smooth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def identity_grid(
    height: int, width: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Float[Tensor, "H W 2"]:
    """Where every pixel is, as (x, y), with the centres of the corner pixels at ±1 (T Eq. 3.4)."""
    if height < 2 or width < 2:
        raise ValueError(f"a grid of {height}×{width} points; at least 2×2 are needed to put the corners at ±1")
    x = torch.linspace(-1, 1, width, dtype=dtype, device=device)
    y = torch.linspace(-1, 1, height, dtype=dtype, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def warp(features: Float[Tensor, "B C H W"], flow: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B C H W"]:
    """Look every pixel up at another place: out(p) = in(p + flow(p)), bilinear, zero outside (T Eq. 3.2 to 3.5).

    Args:
        features: the maps to move; all channels move alike.
        flow: displacement of the look-up in pixels of `features`, as (x, y). What is drawn moves by -flow.

    Returns:
        The moved maps, in the precision of `features`. The places are computed in float32 or better even for bfloat16
        features: with its 8 bits, bfloat16 cannot tell pixel 100 from 100.5.
    """
    if features.ndim != 4 or flow.ndim != 4:
        raise ValueError(
            f"features have {features.ndim} axes and the flow {flow.ndim}; expected 4: (batch, channels, height, width)"
        )
    B, _, H, W = features.shape
    if flow.shape != (B, 2, H, W):
        raise ValueError(
            f"flow has shape {tuple(flow.shape)}; features of shape {tuple(features.shape)} need {(B, 2, H, W)}: an (x, y) for every pixel"
        )
    dtype = torch.promote_types(torch.promote_types(features.dtype, flow.dtype), torch.float32)
    grid = identity_grid(H, W, dtype, features.device)
    x, y = flow.to(dtype).unbind(1)
    # The grid goes from -1 to 1 in W - 1 steps. Numbers, not a tensor of them: a GPU would have to wait for its copy.
    places = grid + torch.stack([2 / (W - 1) * x, 2 / (H - 1) * y], -1)
    moved = F.grid_sample(features.to(dtype), places, mode="bilinear", padding_mode="zeros", align_corners=True)
    return moved.to(features.dtype)


def flow_smoothness(flow: Float[Tensor, "*batch 2 H W"], delta: float = 1e-3) -> Float[Tensor, "*batch"]:
    """How much a flow changes from place to place, summed over the map (T Eq. 3.7 and 3.8); 0 if it is constant.

    Both channels are differenced in both directions with [-1, 0, 1], and each difference a costs a²/2 up to `delta` and
    delta·(|a| - delta/2) beyond (Huber 1964). Differences that would need a pixel outside the map are left out: padded
    with zeros they would charge a constant flow for the border.
    """
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise ValueError(f"flow has shape {tuple(flow.shape)}; expected (..., 2, height, width)")
    if not delta > 0:
        raise ValueError(f"delta is {delta}; expected a number above 0")
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    differences = flow[..., :, 2:] - flow[..., :, :-2], flow[..., 2:, :] - flow[..., :-2, :]
    costs = [F.huber_loss(a, torch.zeros_like(a), reduction="none", delta=delta) for a in differences]
    return costs[0].sum((-3, -2, -1)) + costs[1].sum((-3, -2, -1))
