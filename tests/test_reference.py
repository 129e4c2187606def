"""The plain networks compute what the fast ones do."""

from __future__ import annotations

import pytest
import torch

import framepred as fp
from framepred.baselines.fitted import CalibratedCopy
from framepred.benchmark.reference import draw_plainly, plain, render_plainly
from framepred.data.rendering import render


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("convlstm", {}),
        ("spatiotemporal", {}),
        ("spatiotemporal", {"patch": 2, "cell_kernel": 5}),
        (
            "spatiotemporal",
            {"loss": "cross-entropy", "smoothness": 1000.0},
        ),  # with its own 0.01 the term is lost in 1e-5
        ("vpn", {}),
    ],
)
def test_same_loss_same_logits_and_same_gradients(network, changes):
    model = fp.build(network, "tiny", **changes)
    random = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # zeros (peepholes, flow head) would hide a mistake
        torch.nn.init.normal_(parameter, std=0.1, generator=random)
    written = plain(model)
    context, target = torch.rand(2, 6, 1, 16, 16, generator=random).split(3, 1)
    (a, forecast), (b, other) = model.loss(context, target), written.loss(context, target)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=0)
    torch.testing.assert_close(forecast.logits, other.logits, rtol=1e-4, atol=1e-4)
    a.backward()
    b.backward()
    cells = [module for module in model.modules() if hasattr(module, "input_to_gates")]
    plain_cells = [module for module in written.modules() if hasattr(module, "conv") and hasattr(module, "peephole")]
    for cell, written_cell in zip(cells, plain_cells, strict=True):
        both = torch.cat([cell.input_to_gates.weight.grad, cell.state_to_gates.weight.grad], 1)
        torch.testing.assert_close(both, written_cell.conv.weight.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(cell.peephole.grad, written_cell.peephole.grad, rtol=1e-3, atol=1e-4)


def test_weights_are_a_copy():
    model = fp.build("vpn", "tiny")
    before = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        for parameter in plain(model).parameters():
            parameter.zero_()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before))


def test_another_predictor_is_refused():
    with pytest.raises(ValueError, match="CalibratedCopy is not written plainly; known: ConvLSTM"):
        plain(CalibratedCopy())


def test_the_plain_renderer_makes_the_frames_of_the_fast_one(uci):
    clips = fp.MovingDigits(uci, 3, n_frames=5, frame_size=40).sample(4, dtype=torch.uint8)
    plain_frames = render_plainly(clips.glyphs, clips.positions, 40)
    assert torch.equal(plain_frames, render(clips.glyphs, clips.positions, 40)) and plain_frames.any()


def drawing(n):
    """A decoder, its context's share for n small frames, and a rule that says which pixels it was asked for."""
    decoder = fp.build("vpn", "tiny").decoder
    random = torch.Generator().manual_seed(0)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=random)
    asked = []

    def rule(logits, y, x):
        asked.append((int(y[0]), int(x[0])))
        return torch.where((y + x) % 2 == 0, logits, -logits).sigmoid()

    return decoder, torch.randn(n, decoder.context.out_channels, 5, 7, generator=random), rule, asked


def test_drawing_plainly_gives_the_logits_and_the_frame_of_the_fast_way():
    decoder, share, rule, asked = drawing(2)
    logits, frame = draw_plainly(decoder, share, rule)
    assert asked == [(y, x) for y in range(5) for x in range(7)] and not logits.requires_grad
    expected, drawn = decoder.draw(share, rule)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(frame, drawn, rtol=1e-4, atol=1e-4)
    assert frame.std() > 0.1


def test_drawing_plainly_may_stop_after_some_pixels():
    decoder, share, rule, asked = drawing(1)
    logits, frame = draw_plainly(decoder, share, rule, n_pixels=9)
    assert asked == [(0, x) for x in range(7)] + [(1, 0), (1, 1)]
    whole, _ = draw_plainly(decoder, share, rule)
    assert torch.equal(logits[0, 0, 0], whole[0, 0, 0]) and torch.equal(logits[0, 0, 1, :2], whole[0, 0, 1, :2])
    assert not logits[0, 0, 1, 2:].any() and not logits[0, 0, 2:].any() and not frame[0, 0, 2:].any()
