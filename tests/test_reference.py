"""The plain networks compute what the fast ones do."""

from __future__ import annotations

import pytest
import torch

import framepred as fp
from framepred.baselines.fitted import CalibratedCopy
from framepred.benchmark.reference import plain


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
