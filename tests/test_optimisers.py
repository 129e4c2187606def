"""Muon: what it does to a matrix, which weights it takes, and that PyTorch's does the same."""

import math

import pytest
import torch
from torch import nn

from framepred.models import ConvLSTMCell, Forecast, FramePredictor, build
from framepred.training.config import TrainConfig
from framepred.training.optimisers import Muon, hidden_weights, make_optimizers, orthogonalized


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16), (3, 8, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_become_about_one(shape, dtype):
    matrices = noise(*shape) * torch.logspace(0, -2, shape[-1])  # columns of very different length
    before, after = torch.linalg.svdvals(matrices), torch.linalg.svdvals(orthogonalized(matrices, dtype))
    assert (before.amax(-1) / before.amin(-1)).min() > 3
    # Jordan et al. (2024): the polynomial ends between about 0.7 and 1.2; a singular value near zero needs more steps.
    assert after.max() < 1.25 and after[before > 0.02 * before.amax(-1, keepdim=True)].min() > 0.6


def test_directions_stay():
    """The singular vectors are those of the matrix: U Vᵀ from an exact decomposition points the same way."""
    matrix = noise(10, 30)
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    ours = orthogonalized(matrix, torch.float32)
    assert (ours * (U @ Vh)).sum() / (ours.norm() * (U @ Vh).norm()) > 0.98


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (9, 9)])
def test_steps_on_a_matrix_are_those_of_pytorch(shape):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip(f"torch.optim.Muon came with PyTorch 2.9; this is {torch.__version__}")
    ours, theirs = nn.Parameter(noise(*shape)), nn.Parameter(noise(*shape))
    reference = torch.optim.Muon([theirs], lr=0.03, weight_decay=0.0, momentum=0.9, nesterov=True)
    optimizer = Muon([(ours, 1)], lr=0.03, momentum=0.9)
    for k in range(4):
        ours.grad = noise(*shape, seed=k + 1)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    moved = (theirs - noise(*shape)).detach()
    # Both compute in bfloat16, with 8 bits: rounding may differ, a step may not.
    assert (ours - theirs).detach().norm() < 0.01 * moved.norm()


def test_each_gate_of_a_kernel_is_a_matrix_of_its_own():
    kernel = nn.Parameter(torch.zeros(8, 3, 5, 5))
    kernel.grad = noise(8, 3, 5, 5) * torch.tensor([1.0, 10.0, 0.1, 1e-3]).repeat_interleave(2)[:, None, None, None]
    Muon([(kernel, 4)], lr=1.0, dtype=torch.float32).step()
    for gate in kernel.detach().reshape(4, 2, 75):  # as large for the gate with the smallest gradient
        values = torch.linalg.svdvals(gate)
        assert values.min() > 0.6 and values.max() < 1.25


def test_a_tall_matrix_moves_further_by_the_root_of_its_ratio():
    tall = nn.Parameter(torch.zeros(36, 4))
    tall.grad = noise(36, 4)
    Muon([(tall, 1)], lr=1.0, dtype=torch.float32).step()
    values = torch.linalg.svdvals(tall.detach()) / 3  # √(36/4)
    assert values.min() > 0.6 and values.max() < 1.25


def test_a_weight_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match=r"shape \(6, 2\) cannot be cut into 4 matrices"):
        Muon([(nn.Parameter(torch.zeros(6, 2)), 4)])


# --- which weights ---------------------------------------------------------------------------------------------------


def test_our_networks_name_what_adam_keeps():
    convlstm, spatiotemporal, vpn = (
        hidden_weights(build(name, "tiny")) for name in ("convlstm", "spatiotemporal", "vpn")
    )
    cells = [f"cells.{k}.{layer}_to_gates.weight" for k in range(3) for layer in ("input", "state")]
    assert convlstm == dict.fromkeys(cells, 4)
    assert spatiotemporal == {
        "encoder.weight": 1, "cell.input_to_gates.weight": 4, "cell.state_to_gates.weight": 4, "flow.0.weight": 1,
    }  # fmt: skip
    assert {name for name in vpn if not name.startswith(("encoder", "cell", "decoder.blocks"))} == {
        "decoder.context.weight"
    }
    assert vpn["cell.input_to_gates.weight"] == 4 and vpn["encoder.1.spatial.weight"] == 1
    assert len([name for name in vpn if name.startswith("decoder.blocks")]) == 6  # two blocks of three convolutions


class Own(FramePredictor):
    network = "own"

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.cell = ConvLSTMCell(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)  # its weight is a vector
        self.lstm = nn.Linear(4, 4)
        self.last = nn.Conv2d(4, 1, 1)

    def forecast(self, context, horizon, truth=None, truth_mask=None):
        return Forecast(self.last(self.first(context[:, -1]))[:, None].expand(-1, horizon, -1, -1, -1))


def test_a_network_of_ones_own_leaves_its_first_and_last_layer_to_adam():
    names = {"cell.input_to_gates.weight": 4, "cell.state_to_gates.weight": 4, "lstm.weight": 1}
    assert hidden_weights(Own()) == names

    class Choosy(Own):
        adam_layers = ("cell", "last")

    assert hidden_weights(Choosy()) == {"first.weight": 1, "lstm.weight": 1}


def test_every_parameter_has_one_optimiser():
    for network in ("convlstm", "spatiotemporal", "vpn"):
        model = build(network, "tiny")
        muon, adam = make_optimizers(model, TrainConfig(optimizer="muon", learning_rate=0.1, muon_learning_rate=0.2))
        taken = [id(p) for optimizer in (muon, adam) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(taken) == sorted(id(p) for p in model.parameters())
        assert {g["initial_lr"] for g in muon.param_groups} == {0.2} and adam.param_groups[0]["initial_lr"] == 0.1


def test_masked_taps_stay_where_they_are():
    """A tap that a mask hides has no gradient, and an orthogonal matrix of zero columns has zero columns."""
    model = build("vpn", "tiny")
    name = "decoder.blocks.0.spatial.weight"
    before = dict(model.named_parameters())[name].detach().clone()
    context = torch.rand(1, 2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    model.loss(context, context)[0].backward()
    make_optimizers(model, TrainConfig(optimizer="muon"))[0].step()
    moved = (dict(model.named_parameters())[name] - before).detach().abs().amax((0, 1))
    # Of 3×3 taps, mask B shows the row above, the left neighbour and the pixel itself.
    assert (moved > 0).tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert math.isfinite(moved.max())
