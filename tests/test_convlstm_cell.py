"""The cell against torch's LSTMCell, Keras' ConvLSTM2D and the equations of the thesis."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from framepred.models.layers.convlstm_cell import ConvLSTMCell


def random_tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_cell(n_in, n_out, kernel_size, peepholes):
    """A cell whose every parameter is random, the peepholes and biases too."""
    cell = ConvLSTMCell(n_in, n_out, kernel_size, peepholes)
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            scale = 1 if parameter.ndim == 1 or parameter.shape[-1] == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * random_tensor(*parameter.shape, seed=k))
    return cell


def test_with_1x1_kernels_it_is_an_lstm_cell_at_every_pixel():
    n_in, n_out, B, H, W = 3, 5, 2, 4, 6
    cell, lstm = random_cell(n_in, n_out, 1, peepholes=False), nn.LSTMCell(n_in, n_out)
    with torch.no_grad():
        lstm.weight_ih.copy_(cell.input_to_gates.weight[:, :, 0, 0])
        lstm.weight_hh.copy_(cell.state_to_gates.weight[:, :, 0, 0])
        lstm.bias_ih.copy_(cell.input_to_gates.bias)
        lstm.bias_hh.zero_()

    def pixels(maps):  # every pixel of every clip is one member of LSTMCell's batch
        return maps.permute(0, 2, 3, 1).flatten(0, 2)

    state, reference = None, None
    for t in range(4):
        x = random_tensor(B, n_in, H, W, seed=10 + t)
        with torch.no_grad():
            state, reference = cell(x, state), lstm(pixels(x), reference)
        for ours, theirs in zip(state, reference):
            torch.testing.assert_close(pixels(ours), theirs, atol=1e-6, rtol=1e-5)


def test_with_5x5_kernels_it_is_the_convlstm2d_of_keras():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend before these tests")
    n_in, n_out, B, T, H, W = 2, 3, 2, 5, 7, 9
    cell = random_cell(n_in, n_out, 5, peepholes=False)
    layer = keras.layers.ConvLSTM2D(
        n_out, 5, padding="same", data_format="channels_last", return_sequences=True, return_state=True,
        activation="tanh", recurrent_activation="sigmoid",
    )  # fmt: skip
    layer.build((B, T, H, W, n_in))
    # Keras keeps its kernels as (height, width, in, 4·out), the gates in the same order: i, f, c, o.
    own = [cell.input_to_gates.weight.permute(2, 3, 1, 0), cell.state_to_gates.weight.permute(2, 3, 1, 0)]
    layer.set_weights([weight.detach().numpy() for weight in (*own, cell.input_to_gates.bias)])
    x = random_tensor(B, T, n_in, H, W)
    with torch.no_grad():
        hidden, (h, c) = cell.run(x)
        theirs = layer(x.permute(0, 1, 3, 4, 2))
    assert hidden.std() > 0.1
    torch.testing.assert_close(hidden, theirs[0].cpu().permute(0, 1, 4, 2, 3), atol=1e-5, rtol=0)
    for ours, state in zip((h, c), theirs[1:]):
        torch.testing.assert_close(ours, state.cpu().permute(0, 3, 1, 2), atol=1e-5, rtol=0)


def equation_3_1(cell, x, h, c):
    """One step as the thesis writes it, a convolution for each gate and source."""
    W_xi, W_xf, W_xc, W_xo = cell.input_to_gates.weight.chunk(4)
    W_hi, W_hf, W_hc, W_ho = cell.state_to_gates.weight.chunk(4)
    b_i, b_f, b_c, b_o = (b[:, None, None] for b in cell.input_to_gates.bias.chunk(4))
    W_ci, W_cf, W_co = cell.peephole

    def conv(image, kernel):
        return F.conv2d(image, kernel, padding=kernel.shape[-1] // 2)

    i = torch.sigmoid(conv(x, W_xi) + conv(h, W_hi) + W_ci * c + b_i)
    f = torch.sigmoid(conv(x, W_xf) + conv(h, W_hf) + W_cf * c + b_f)
    c = f * c + i * torch.tanh(conv(x, W_xc) + conv(h, W_hc) + b_c)
    o = torch.sigmoid(conv(x, W_xo) + conv(h, W_ho) + W_co * c + b_o)
    return o * torch.tanh(c), c


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_a_step_is_equation_3_1(kernel_size):
    cell = random_cell(2, 3, kernel_size, peepholes=True)
    h, c = torch.zeros(2, 2, 3, 6, 7)
    state = None
    with torch.no_grad():
        for t in range(4):
            x = random_tensor(2, 2, 6, 7, seed=t)
            state = cell(x, state)
            h, c = equation_3_1(cell, x, h, c)
            torch.testing.assert_close(state[0], h, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(state[1], c, atol=1e-5, rtol=1e-5)


def test_each_peephole_changes_what_its_gate_does():
    cell = random_cell(2, 3, 3, peepholes=True)
    x, state = random_tensor(1, 2, 4, 4), (random_tensor(1, 3, 4, 4, seed=1), random_tensor(1, 3, 4, 4, seed=2))
    with torch.no_grad():
        before = cell(x, state)
        for row, changes_cell_state in enumerate((True, True, False)):  # i, f; o sees the new state only
            cell.peephole[row] += 1
            h, c = cell(x, state)
            cell.peephole[row] -= 1
            assert not torch.allclose(h, before[0])
            assert torch.allclose(c, before[1]) != changes_cell_state


@pytest.mark.parametrize("peepholes", [True, False])
def test_run_is_repeated_forward(peepholes):
    cell = random_cell(2, 3, 3, peepholes)
    x = random_tensor(2, 5, 2, 6, 4)
    start = (random_tensor(2, 3, 6, 4, seed=1), random_tensor(2, 3, 6, 4, seed=2))
    for first in (None, start):
        state, hidden = first, []
        with torch.no_grad():
            for t in range(5):
                state = cell(x[:, t], state)
                hidden.append(state[0])
            all_hidden, last = cell.run(x, first)
        torch.testing.assert_close(all_hidden, torch.stack(hidden, 1), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(last, state, atol=1e-6, rtol=1e-5)


def test_no_state_is_a_state_of_zeros():
    cell = random_cell(2, 3, 3, peepholes=True)
    x = random_tensor(2, 2, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(cell(x), cell(x, tuple(torch.zeros(2, 2, 3, 5, 5))), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bias", [1.0, 0.0, 2.5])
def test_only_the_forget_gate_starts_with_a_bias(bias):
    gates = ConvLSTMCell(1, 3, 3, forget_bias=bias).input_to_gates.bias.reshape(4, 3)
    assert gates.tolist() == [[0] * 3, [bias] * 3, [0] * 3, [0] * 3]
    if bias == 1.0:
        assert torch.equal(ConvLSTMCell(1, 3, 3).input_to_gates.bias.reshape(4, 3), gates)


@pytest.mark.parametrize(
    ("hidden", "published"), [((256,), 13_524_496), ((128, 128), 10_042_896), ((128, 64, 64), 7_585_296)]
)
def test_parameters_are_those_that_shi_et_al_published(hidden, published):
    # Their Table 1, 5×5 kernels on frames cut into 4×4 patches: an encoder; a forecaster, whose first cell has no
    # input; a 1×1 convolution of all the forecaster's states. Only one peephole a channel gives these counts.
    def count(module):
        return sum(p.numel() for p in module.parameters())

    encoder = [ConvLSTMCell(n_in, n_out, 5) for n_in, n_out in zip((16, *hidden), hidden)]
    forecaster = sum(map(count, encoder)) - encoder[0].input_to_gates.weight.numel()
    assert sum(map(count, encoder)) + forecaster + 16 * sum(hidden) + 16 == published


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel_size is 4; an odd one keeps the frame's size"):
        ConvLSTMCell(1, 2, 4)
