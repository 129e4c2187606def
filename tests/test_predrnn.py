"""PredRNN: the equations of its paper, what it is given under each protocol, and what it refuses."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from framepred.data.moving import MovingDigits
from framepred.models import PredRNN, build
from framepred.models.predrnn import SpatiotemporalLSTMCell
from framepred.precision import autocast
from framepred.training.config import TrainConfig
from framepred.training.loop import train
from framepred.training.optimisers import hidden_weights

CONTEXT, HORIZON = 4, 3


@pytest.fixture(scope="module")
def batch(uci):
    return MovingDigits(uci, n_frames=CONTEXT + HORIZON, frame_size=32).sample(3).split(CONTEXT)


@pytest.fixture(scope="module")
def model():
    model = build("predrnn", "tiny", output_bias=0.0)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return model


def test_parameter_counts_by_the_layer_list():
    def layers(patch, layers, hidden, kernel):
        total = hidden * patch**2 + patch**2
        for n_in in (patch**2, *[hidden] * (layers - 1)):
            convolutions = 7 * n_in + 4 * hidden + 3 * hidden + 2 * hidden  # of x, h, m and [c, m]
            total += hidden * (kernel**2 * convolutions + 7 + 2 * hidden)
        return total

    for preset, sizes in {"paper": (4, 4, 128, 5), "book": (8, 3, 64, 3), "tiny": (4, 2, 8, 3)}.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in build("predrnn", preset).parameters()) == layers(*sizes)


def test_cell_is_the_equations_of_the_paper():
    torch.manual_seed(0)
    n, cell = 3, SpatiotemporalLSTMCell(2, 3, kernel_size=3)
    torch.nn.init.normal_(cell.from_input.bias)
    x, h, c, m = torch.randn(2, 2, 5, 6), *torch.randn(3, 2, n, 5, 6)

    def conv(layer, inputs, gate):  # one gate's kernel
        return F.conv2d(inputs, layer.weight[gate * n : (gate + 1) * n], padding=1)

    def by_input(gate):
        return conv(cell.from_input, x, gate) + cell.from_input.bias[gate * n : (gate + 1) * n, None, None]

    g, i, f = (by_input(k) + conv(cell.from_state, h, k) for k in range(3))
    g_m, i_m, f_m = (by_input(3 + k) + conv(cell.from_memory, m, k) for k in range(3))
    c_new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    m_new = f_m.sigmoid() * m + i_m.sigmoid() * g_m.tanh()
    both = torch.cat([c_new, m_new], 1)
    o = (by_input(6) + conv(cell.from_state, h, 3) + conv(cell.from_cells, both, 0)).sigmoid()
    h_new = o * torch.einsum("nk,bkij->bnij", cell.mix.weight[:, :, 0, 0], both).tanh()

    (h_is, c_is), m_is = cell(x, (h, c), m)
    torch.testing.assert_close((h_is, c_is, m_is), (h_new, c_new, m_new))


def test_forget_gates_start_open():
    bias = SpatiotemporalLSTMCell(2, 3, forget_bias=1.5).from_input.bias.view(7, 3)
    assert bias[[2, 5]].eq(1.5).all() and bias[[0, 1, 3, 4, 6]].eq(0).all()


@torch.no_grad()
def test_memory_climbs_the_stack_and_goes_down_to_the_next_frame(model, batch):
    context, _ = batch
    given = []
    hooks = [
        cell.register_forward_hook(lambda _, inputs, out: given.append((inputs[2], out[1]))) for cell in model.cells
    ]
    model(context, 2)
    for hook in hooks:
        hook.remove()
    assert len(given) == 2 * (CONTEXT + 1) and given[0][0].eq(0).all()
    assert all(before[1] is after[0] for before, after in pairwise(given))


@torch.no_grad()
def test_a_prediction_hangs_on_what_its_protocol_gives_it(model, batch):
    context, target = batch
    rollout, one_step = model(context, HORIZON).logits, model(context, HORIZON, truth=target).logits
    assert rollout.shape == target.shape and rollout.dtype == torch.float32
    torch.testing.assert_close(rollout[:, 0], one_step[:, 0])
    assert (rollout[:, 1] - one_step[:, 1]).abs().max() > 1e-3
    # One step ahead is a rollout's first frame after a longer context, and so are the frames from the start.
    longer = torch.cat([context, target], 1)
    from_start = model.forecast(context, HORIZON, target, from_start=True).logits
    for t in range(1, CONTEXT + HORIZON):
        torch.testing.assert_close(from_start[:, t - 1 : t], model(longer[:, :t], 1).logits)
    torch.testing.assert_close(from_start[:, CONTEXT - 1 :], one_step)


@torch.no_grad()
def test_mask_says_clip_by_clip_what_is_fed_back(model, batch):
    context, target = batch
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    mixed = model.forecast(context, HORIZON, target, mask).logits
    torch.testing.assert_close(mixed[1], model(context, HORIZON).logits[1])
    torch.testing.assert_close(mixed[2], model(context, HORIZON, truth=target).logits[2])
    fed = torch.stack([target[0, 0], mixed[0, 1].sigmoid()])[None]
    torch.testing.assert_close(
        mixed[:1], model.forecast(context[:1], HORIZON, torch.cat([fed, target[:1, 2:]], 1)).logits
    )


def test_under_autocast_it_returns_float32(model, batch):
    with torch.no_grad(), autocast("cpu", "bf16"):
        assert model(batch[0], HORIZON).logits.dtype == torch.float32


def test_muon_takes_each_gate_as_a_matrix_and_leaves_the_head():
    gates = hidden_weights(build("predrnn", "tiny"))
    assert gates["cells.0.from_input.weight"] == 7 and gates["cells.1.from_state.weight"] == 4
    assert gates["cells.1.from_memory.weight"] == 3 and gates["cells.0.from_cells.weight"] == 1
    assert "head.weight" not in gates


def test_it_learns(uci):
    clips = MovingDigits(uci, n_digits=1, n_frames=6, frame_size=32, speed=0.15)
    config = TrainConfig.recipe(steps=60, context=3, horizon=3, log_every=10)
    nats = train(build("predrnn", "tiny"), clips, config)["nats"]
    assert nats.iloc[-1] < 0.92 * nats.iloc[0]


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="0 layers of 8 channels; expected at least 1 of each"):
        PredRNN(layers=0, hidden=8)
    with pytest.raises(ValueError, match="kernel_size is 4; an odd one keeps the frame's size"):
        PredRNN(kernel_size=4)
    with pytest.raises(ValueError, match="patch is 0"):
        PredRNN(patch=0)
    with pytest.raises(ValueError, match="30×32 pixels; this network needs multiples of 4"):
        build("predrnn", "tiny")(torch.zeros(1, 4, 1, 30, 32))
