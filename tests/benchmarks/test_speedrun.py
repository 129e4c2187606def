"""The speedrun: the seconds of training after which a ConvLSTM is as good as that of the thesis, which had two days of a GPU."""

import time

import pytest
import torch

from framepred.analysis.prior_work import reported
from framepred.data.moving import MovingDigits
from framepred.data.test_sets import test_set
from framepred.evaluation import evaluate
from framepred.models import build
from framepred.training.config import TrainConfig
from framepred.training.loop import train

STEPS = 1500  # of eight clips; the rate has fallen to zero after them


@pytest.mark.by_hand
def test_a_convlstm_reaches_the_error_of_the_thesis(mnist, capsys):
    thesis = reported("rollout").query("cite == 'feist2021' and network == 'ConvLSTM' and test_set == 'own'")
    clips, model = MovingDigits(mnist("train")), build("convlstm", "book")
    began, used = time.perf_counter(), time.process_time()
    train(model, clips, TrainConfig.recipe(steps=STEPS))
    seconds, used = time.perf_counter() - began, time.process_time() - used
    nats = evaluate(model, test_set("mnist-2", 10_000), batch_size=100).nats.mean()
    with capsys.disabled():
        print(
            f"\n{nats:.1f} nats on 10,000 test clips after {seconds:.0f} s with {torch.get_num_threads()} threads "
            f"({used:.0f} s of processor time); the thesis: {thesis['nats'].item()}"
        )
    assert nats <= thesis["nats"].item()
