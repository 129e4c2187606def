"""The network of chapter 5.3 in the package: the page's, and what its protocols give it."""

from pathlib import Path

import jupytext
import pytest
import torch

import framepred as fp
from framepred.models import SimVP, build
from framepred.training.config import TrainConfig
from framepred.training.loop import train

PAGE = Path(fp.__file__).parents[1] / "book" / "5-conclusion" / "3-without-recurrence.md"
T = 4


@pytest.fixture(scope="module")
def model():
    return build("simvp", "tiny", frames=T)


@pytest.fixture(scope="module")
def batch(uci):
    return fp.MovingDigits(uci, n_frames=2 * T, frame_size=32).sample(2).split(T)


@torch.no_grad()
@pytest.mark.skipif(not PAGE.exists(), reason="only in a checkout")
def test_it_is_the_network_that_the_page_writes(uci):
    cells = [cell.source for cell in jupytext.read(PAGE).cells if cell.cell_type == "code"]
    names: dict = {"fp": fp, "torch": torch, "F": torch.nn.functional, "nn": torch.nn}
    for start in ("class GatedBlock", "class SmallSimVP"):
        exec(next(source for source in cells if source.startswith(start)), names)
    ours, of_page = build("simvp", "book"), names["SmallSimVP"]()
    of_page.load_state_dict(ours.state_dict())
    context, target = fp.MovingDigits(uci).sample(1).split(10)
    for horizon, truth in ((10, None), (10, target), (12, None)):
        assert torch.equal(ours(context, horizon, truth).logits, of_page(context, horizon, truth).logits)


@torch.no_grad()
def test_a_longer_rollout_goes_on_from_its_own_block(model, batch):
    context, _ = batch
    logits = model(context, 2 * T - 1).logits
    second = model(logits[:, :T].sigmoid(), T - 1).logits
    torch.testing.assert_close(logits, torch.cat([model(context, T).logits, second], 1))


@torch.no_grad()
def test_one_step_ahead_counts_the_first_frame_of_each_window(model, batch):
    context, target = batch
    known = torch.cat([context, target], 1)
    expected = torch.cat([model(known[:, t : t + T], T).logits[:, :1] for t in range(T)], 1)
    torch.testing.assert_close(model(context, T, truth=target).logits, expected)


def test_it_refuses_what_it_cannot(model, batch, uci):
    context, target = batch
    with pytest.raises(ValueError, match=r"simvp sees 4 frames at once \(context has 3\)"):
        model(context[:, 1:], T)
    with pytest.raises(ValueError, match="teacher_forcing=0"):
        model.forecast(context, T, target, torch.ones(2, T, dtype=torch.bool))
    clips = fp.MovingDigits(uci, n_frames=2 * T, frame_size=32)
    with pytest.raises(ValueError, match="loss_on is 'all', but simvp does not predict the frames of the context"):
        train(model, clips, TrainConfig(steps=1, context=T, horizon=T, loss_on="all"))
    with pytest.raises(ValueError, match="patch is 0"):
        SimVP(patch=0)


def test_it_learns(uci):
    clips = fp.MovingDigits(uci, n_digits=1, n_frames=2 * T, frame_size=32, speed=0.15)
    config = TrainConfig(steps=60, batch_size=8, context=T, horizon=T, optimizer="muon", learning_rate=3e-3)
    nats = train(build("simvp", "tiny", frames=T), clips, config)["nats"]
    assert nats.iloc[-1] < 0.7 * nats.iloc[0]
