"""Scores: what each protocol gives a network, and that the numbers are those of a plain loop."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import framepred
from framepred.data.moving import MovingDigits
from framepred.data.test_sets import TestSet
from framepred.evaluation import PROTOCOLS, Scores, applicable, evaluate, predict
from framepred.models import build


@pytest.fixture(scope="module")
def test_set(uci):
    return TestSet("small", 5, MovingDigits(uci, n_frames=7, frame_size=32))


@pytest.fixture(scope="module")
def model():
    model = build("convlstm", "tiny")
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    return model


NAMES = {"context": 4, "precision": "fp32"}


@pytest.mark.parametrize("protocol", ["rollout", "one-step"])
@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_scores_are_those_of_a_loop_over_clips(protocol, batch_size, model, test_set):
    scores = evaluate(model, test_set, protocol, batch_size=batch_size, **NAMES)
    nats, floor, squared = [], [], []
    with torch.no_grad():
        for k in range(5):
            frames = test_set.sample(1, start=k).frames
            context, target = frames[:, :4], frames[:, 4:]
            p = model(context, 3, truth=target if protocol == "one-step" else None).frames.clamp(1e-7, 1 - 1e-7)
            nats.append(F.binary_cross_entropy(p, target, reduction="none").sum((2, 3, 4)))
            floor.append(F.binary_cross_entropy(target, target, reduction="none").sum((2, 3, 4)))
            squared.append(((p - target) ** 2).sum((2, 3, 4)))
    for name, rows in {"nats": nats, "floor": floor, "squared_error": squared}.items():
        values = getattr(scores, name)
        assert values.shape == (5, 3) and values.dtype == np.float32
        np.testing.assert_allclose(values, torch.cat(rows).numpy(), rtol=1e-3)
    assert (scores.network, scores.test_set, scores.protocol) == ("convlstm", "small", protocol)
    assert protocol in repr(scores) and f"{scores.nats.mean():.1f} nats/frame" in repr(scores)


@torch.no_grad()
def test_protocols_give_a_network_what_they_say(model, test_set):
    context, target = test_set.sample(2).split(4)
    rollout, one_step = predict(model, context, target), predict(model, context, target, "one-step")
    other = torch.rand(target.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(predict(model, context, other).logits, rollout.logits)  # a rollout never sees the truth
    assert not torch.equal(predict(model, context, other, "one-step").logits[:, 1:], one_step.logits[:, 1:])
    torch.testing.assert_close(rollout.logits[:, 0], one_step.logits[:, 0])  # nothing is fed back before frame 1


class Told(framepred.FramePredictor):
    """Knows the frames of the clips that it was given, and predicts them nearly surely."""

    network = "told"

    def given(self, clips):
        told = Told()
        told.frames = clips.frames
        return told

    def forecast(self, context, horizon, truth=None, truth_mask=None):
        return framepred.Forecast(self.frames[:, -horizon:].clamp(1e-6, 1 - 1e-6).logit())


@pytest.mark.parametrize("batch_size", [2, 5])
def test_a_predictor_is_given_the_clips_that_it_is_scored_on(batch_size, test_set):
    scores = evaluate(Told(), test_set, batch_size=batch_size, **NAMES)
    np.testing.assert_allclose(scores.nats, scores.floor, atol=0.01)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_networks_compute_in_the_precision_asked_for(precision, dtype, model, test_set):
    seen = set()
    handle = model.head.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    evaluate(model, test_set, context=4, precision=precision)
    handle.remove()
    assert seen == {dtype}


def test_only_what_a_network_can_do_is_asked_of_it():
    class AtOnce(Told):
        one_step = False

    assert applicable(AtOnce()) == ["rollout"]
    assert applicable(Told()) == ["rollout", "one-step"]
    assert applicable(build("vpn", "tiny")) == ["rollout", "one-step", "teacher-forced"]


def test_scores_print_their_means():
    nats = np.array([[100.0, 200.0, 303.0], [102.0, 200.0, 303.0]], np.float32)
    scores = Scores("mine", "small", "rollout", nats, np.full_like(nats, 86.4), nats)
    assert repr(scores) == (
        "Scores(mine on 2 clips of small, rollout: 201.3 nats/frame, first 101.0, last 303.0, floor 86.4)"
    )


def test_scores_cannot_be_changed_and_are_equal_to_themselves_only(model, test_set):
    scores, others = (evaluate(model, test_set, **NAMES) for _ in range(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.protocol = "one-step"
    assert scores == scores and scores != others  # arrays have no equality that is true or false


def test_unless_told_fifty_clips_are_predicted_at_a_time(uci):
    class Counted(Told):
        def given(self, clips):
            batches.append(len(clips))
            return super().given(clips)

    batches = []
    evaluate(Counted(), TestSet("more", 60, MovingDigits(uci, n_frames=5, frame_size=32)), context=4)
    assert batches == [50, 10]


def test_progress_is_shown_only_if_asked_for(model, test_set, capsys):
    evaluate(model, test_set, batch_size=2, **NAMES)
    assert capsys.readouterr() == ("", "")


def test_progress_counts_clips(model, test_set, capsys):
    evaluate(model, test_set, batch_size=2, progress=True, **NAMES)
    assert "5/5" in capsys.readouterr().err


@torch.no_grad()
def test_teacher_forcing_gives_a_pixel_the_ones_before_it(test_set):
    vpn = build("vpn", "tiny")
    context, target = test_set.sample(1).split(4)
    before = predict(vpn, context, target, "teacher-forced").logits
    other = target.clone()
    other[:, 1, :, 16, 16:] = 1 - other[:, 1, :, 16, 16:]  # from pixel (16, 16) of the second frame to the row's end
    after = predict(vpn, context, other, "teacher-forced").logits
    changed = (after - before).abs() > 1e-6
    assert not changed[:, 0].any() and not changed[:, 1, :, :16].any() and not changed[:, 1, :, 16, :17].any()
    assert changed[:, 1].any() and changed[:, 2].any()


def test_teacher_forcing_does_not_apply_to_networks_that_predict_all_pixels_at_once(test_set):
    for network in ("convlstm", "spatiotemporal"):
        with pytest.raises(ValueError, match=f"'teacher-forced' does not apply to {network}: .* Use 'one-step'"):
            evaluate(build(network, "tiny"), test_set, "teacher-forced", **NAMES)


def test_unknown_names_list_the_known_ones(model, test_set):
    with pytest.raises(ValueError, match="unknown protocol 'two-step'; known: rollout, one-step, teacher-forced"):
        evaluate(model, test_set, "two-step", **NAMES)
    with pytest.raises(ValueError, match="unknown precision 'fp16'; known: auto, bf16, fp32"):
        evaluate(model, test_set, context=4, precision="fp16")
    assert list(PROTOCOLS) == ["rollout", "one-step", "teacher-forced"]


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_gradients_of_the_network_are_as_before(training, model, test_set, monkeypatch):
    modes = []
    original = type(model).forecast
    monkeypatch.setattr(
        type(model), "forecast", lambda self, *args: modes.append(self.training) or original(self, *args)
    )
    model.train(training)
    evaluate(model, test_set, **NAMES)
    assert model.training == training and modes and not any(modes)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError):
        evaluate(model, test_set, "teacher-forced", **NAMES)
    assert model.training == training


def test_context_and_batches_that_do_not_fit_are_refused(model, test_set):
    for context in (0, 7):
        with pytest.raises(ValueError, match=f"context is {context}; a clip of 7 frames"):
            evaluate(model, test_set, context=context)
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate(model, test_set, context=4, batch_size=0)


def test_named_test_sets_are_scored_after_ten_frames(model):
    scores = framepred.evaluate(model, framepred.test_set("uci-2", n=3))
    assert scores.nats.shape == (3, 10) and scores.test_set == "uci-2"
    assert (scores.nats >= scores.floor + 2 * scores.squared_error - 0.01).all()
