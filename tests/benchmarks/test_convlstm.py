"""A training step of the patched ConvLSTM against Keras' ConvLSTM2D layers of the same widths."""

import os

import pytest
import torch
import torch.nn.functional as F

from framepred.models import PRESETS, build
from framepred.precision import autocast

BATCH, CONTEXT, HORIZON = 4, 10, 10
SPEEDUP, ROUNDS = 1.7, 5


@pytest.fixture(scope="module")
def batch():
    frames = torch.rand(BATCH, CONTEXT + HORIZON, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return frames.split([CONTEXT, HORIZON], 1)


@pytest.fixture(scope="module")
def steps(batch):
    """A training step (forward, loss, backward) of each: 19 recurrent steps, a loss on the last ten frames."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras runs on another backend")
    context, target = batch
    model = build("convlstm", "patched")
    patch = PRESETS["convlstm"]["patched"]["patch"]
    layers = [
        keras.layers.ConvLSTM2D(
            cell.hidden_channels, 5, padding="same", return_sequences=True, data_format="channels_last"
        )
        for cell in model.cells
    ]
    head = keras.layers.Conv2D(patch**2, 1)

    def framepred():
        model.zero_grad()
        with autocast("cpu"):
            loss, _ = model.loss(context, target)
        loss.backward()

    def keras_stack():
        # Keras reads a known sequence: the true frames, where the network above reads its own predictions.
        frames = torch.cat([context, target[:, :-1]], 1)
        x = F.pixel_unshuffle(frames, patch).permute(0, 1, 3, 4, 2)
        hidden = []
        for layer in layers:
            x = layer(x)
            hidden.append(x)
        maps = torch.cat(hidden, -1)[:, CONTEXT - 1 :].flatten(0, 1)
        logits = F.pixel_shuffle(head(maps).permute(0, 3, 1, 2), patch)
        loss = F.binary_cross_entropy_with_logits(logits, target.flatten(0, 1), reduction="sum")
        for weight in weights():
            weight.grad = None
        loss.backward()

    def weights():
        return [w.value for layer in (*layers, head) for w in layer.trainable_weights]

    keras_stack()  # builds the layers
    assert all(w.device.type == "cpu" and w.dtype == torch.float32 and w.grad is not None for w in weights())
    # Ours has three peepholes a channel more.
    ours = sum(p.numel() for name, p in model.named_parameters() if "peephole" not in name)
    assert ours == sum(w.numel() for w in weights())
    return {"keras": keras_stack, "framepred": framepred}


@pytest.mark.benchmark(group="ConvLSTM, training step (patched, batch 4): ours and Keras' in turn")
def test_training_step_is_faster_than_keras(steps, benchmark, in_turn):
    seconds = in_turn(steps, ROUNDS)
    keras, ours = (min(seconds[name]) for name in ("keras", "framepred"))
    print(f"\ntraining step: Keras {keras:.2f} s, framepred {ours:.2f} s, {keras / ours:.2f}× faster")
    if benchmark.stats is not None:  # None under --benchmark-disable
        assert keras / ours >= SPEEDUP
