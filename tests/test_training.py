"""The training loop: that it learns, what it leaves behind, and what stops it."""

import csv
import hashlib
import json
import math
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

import framepred
from framepred.data.moving import MovingDigits
from framepred.models import build
from framepred.precision import PRECISIONS, autocast
from framepred.training.config import Feedback, Schedule, TrainConfig
from framepred.training.loop import train
from framepred.training.progress import Pace
from framepred.training.schedule import FEEDBACKS, SCHEDULES


@pytest.fixture(scope="module")
def clips(uci):
    return MovingDigits(uci, 1, n_frames=5, frame_size=32)


def small(**changes):
    return TrainConfig(**{"steps": 4, "batch_size": 2, "context": 3, "horizon": 2, "log_every": 2, **changes})


def files(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "schedule", "rate"), [("adam", "one-cycle", 1e-2), ("rmsprop", "decay", 3e-3)])
def test_a_short_training_lowers_the_loss(optimizer, schedule, rate, clips):
    unseen = clips.sample(20, seed=99)
    context, target = unseen.split(3)
    model = build("convlstm", "tiny", output_bias=0.0)

    def nats():
        with torch.no_grad():
            return framepred.cross_entropy(model(context, 2).logits, target).mean().item()

    before = nats()
    history = train(
        model,
        clips,
        small(steps=60, batch_size=4, log_every=20, optimizer=optimizer, schedule=schedule, learning_rate=rate),
    )
    # The best constant picture: every pixel white with the frames' mean probability.
    mean = target.mean().item()
    constant = -32 * 32 * (mean * math.log(mean) + (1 - mean) * math.log(1 - mean))
    assert nats() < constant < before
    assert history["nats"].is_monotonic_decreasing and history["nats"].iloc[-1] < 0.7 * history["nats"].iloc[0]


def test_history_has_a_row_every_few_steps_and_one_at_the_end(clips):
    history = train(build("convlstm", "tiny"), clips, small(steps=7, batch_size=2, log_every=3))
    assert history["step"].tolist() == [3, 6, 7] and history["clips"].tolist() == [6, 12, 14]
    assert history["seconds"].is_monotonic_increasing and history["loss"].notna().all()
    torch.testing.assert_close(torch.tensor(history["loss"]), torch.tensor(history["nats"]))  # this network's loss


def test_rows_hold_the_means_since_the_row_before(clips):
    def losses(log_every):
        return train(build("convlstm", "tiny"), clips, small(steps=4, log_every=log_every, precision="fp32"))[
            "loss"
        ].tolist()

    each = losses(1)
    assert losses(2) == pytest.approx([(each[0] + each[1]) / 2, (each[2] + each[3]) / 2], rel=1e-5)


def test_same_seed_trains_the_same_network(clips):
    def weights(seed):
        model = build("convlstm", "tiny")
        train(model, clips, small(seed=seed))
        return model.head.weight

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


def test_step_k_trains_on_clips_k_times_batch_size_onward(clips, monkeypatch):
    model = build("convlstm", "tiny")
    seen = []
    original = model.loss
    monkeypatch.setattr(
        model,
        "loss",
        lambda context, target, *rest, **named: (
            seen.append((context, target)) or original(context, target, *rest, **named)
        ),
    )
    train(model, clips, small(steps=3, context=2, horizon=1, seed=5))
    for k, (context, target) in enumerate(seen):
        expected = clips.sample(2, seed=5, start=2 * k).frames
        assert torch.equal(context, expected[:, :2]) and torch.equal(target, expected[:, 2:3])
    assert len(seen) == 3


def test_first_step_of_the_thesis_optimizer_is_that_of_rmsprop_by_hand(clips):
    model, by_hand = build("convlstm", "tiny"), build("convlstm", "tiny")
    config = small(
        steps=1, optimizer="rmsprop", schedule="constant", learning_rate=1e-3, clip_norm=0.5, precision="fp32"
    )
    train(model, clips, config)
    context, target = clips.sample(2).split(3)
    loss, _ = by_hand.loss(context, target)
    loss.backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in by_hand.parameters() if p.grad is not None))
    assert norm > 0.5  # so that clipping matters
    for ours, theirs in zip(model.parameters(), by_hand.parameters()):
        g = theirs.grad * (0.5 / norm)
        # square_avg = 0.01 g² after one step: θ - η g / (√square_avg + ε)
        expected = theirs.detach() - 1e-3 * g / (0.1 * g.abs() + 1e-8)
        torch.testing.assert_close(ours.detach(), expected, atol=2e-5, rtol=0)


def test_trained_network_is_ready_to_predict(clips):
    model = build("convlstm", "tiny")
    train(model, clips, small(steps=1))
    assert not model.training


def test_bfloat16_keeps_the_weights_in_float32(clips):
    model = build("convlstm", "tiny")
    history = train(model, clips, small(precision="bf16"))
    assert all(p.dtype == torch.float32 for p in model.parameters()) and history["loss"].notna().all()


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # a rise to 1 over the first tenth, then half a cosine: its middle is at 0.55, its thirds at 0.4 and 0.7
        ("one-cycle", {0: 0, 0.05: 0.5, 0.1: 1, 0.4: 0.75, 0.55: 0.5, 0.7: 0.25, 1: 0}),
        ("decay", {0: 1, 0.5: 0.1, 0.75: 10**-1.5, 1: 0.01}),
        ("constant", {0: 1, 0.3: 1, 1: 1}),
    ],
)
def test_schedules_have_their_hand_worked_values(name, values):
    assert {t: pytest.approx(SCHEDULES[name](t), abs=1e-9) for t in values} == values


def test_learning_rate_follows_the_schedule(clips):
    # Step k of n is taken at (k + 1/2)/n of the schedule.
    history = train(build("convlstm", "tiny"), clips, small(steps=5, log_every=1, learning_rate=0.02, schedule="decay"))
    expected = [0.02 * 10 ** (-2 * t) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert history["learning_rate"].tolist() == pytest.approx(expected)


# --- what stops it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("log_every", [1, 3, 10])
def test_non_finite_loss_stops_training_and_names_step_and_clips(value, log_every, clips, monkeypatch):
    model = build("convlstm", "tiny")
    original, calls = model.loss, []

    def loss(*arguments, **named):
        loss, forecast = original(*arguments, **named)
        calls.append(None)
        return (loss * value if len(calls) == 5 else loss), forecast

    monkeypatch.setattr(model, "loss", loss)
    with pytest.raises(FloatingPointError, match=rf"step 4 is {value:.4g}.*clips are 8 to 9 of seed 3"):
        train(model, clips, small(steps=20, log_every=log_every, seed=3))
    assert len(calls) < 20


@pytest.mark.parametrize(
    ("field", "values"),
    [
        *[(name, (0, -1, 2.5, "10")) for name in ("steps", "batch_size", "context", "horizon", "log_every")],
        *[(name, (0.0, -1e-3, math.nan, math.inf)) for name in ("learning_rate", "clip_norm")],
        ("seed", (-1, 2**63, 0.5)),
        ("optimizer", ("sgd",)),
        ("schedule", ("linear",)),
        ("precision", ("fp16",)),
        *[(name, (0, -1, 2.5, True)) for name in ("accumulate", "validate_every", "validation_clips")],
        ("patience", (-1, 1.5)),
        ("ema", (-0.1, 1.0, float("nan"))),
        ("minutes", (0, -1.0, float("inf"), float("nan"))),
        ("checkpoint_minutes", (-1.0, float("inf"), None)),
        ("compile", (1, "yes")),
        ("channels_last", (0,)),
        ("feedback", ("teacher",)),
    ],
)
def test_every_field_of_a_config_is_checked(field, values):
    for value in values:
        with pytest.raises(ValueError, match=field):
            TrainConfig(**{field: value})


def test_a_field_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="stepz"):
        TrainConfig(stepz=10)


def test_numbers_of_numpy_become_plain_ones():
    rate = TrainConfig(learning_rate=np.float64(1e-4)).learning_rate
    assert type(rate) is float and rate == 1e-4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps is 0: input should be greater than or equal to 1"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd': input should be 'adam', 'rmsprop' or 'muon'"),
        ({"precision": "fp16"}, "precision is 'fp16': input should be 'auto', 'bf16' or 'fp32'"),
        ({"compile": "yes"}, "compile is 'yes': input should be a valid boolean, or input should be 'default', "
         "'reduce-overhead', 'max-autotune' or 'parts'"),
        ({"ema": 1.0, "seed": -1}, "ema is 1.0: input should be less than 1; seed is -1: input should be greater than or equal to 0"),
        ({"stepz": 1}, "stepz is 1: unexpected keyword argument"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size 6 cannot be cut into 4 equal parts (accumulate)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_config_is_said_in_one_line(given, message):
    with pytest.raises(ValueError) as error:
        TrainConfig(**given)
    assert str(error.value) == message and type(error.value) is ValueError


def test_unknown_precision_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown precision 'fp16'; known: auto, bf16, fp32"):
        autocast("cpu", "fp16")


def test_every_choice_of_a_config_is_made_somewhere():
    assert get_args(Schedule) == tuple(SCHEDULES) and set(get_args(Feedback)) == set(FEEDBACKS)
    assert get_args(get_type_hints(TrainConfig)["precision"]) == PRECISIONS


class Clock:
    """A clock that a test moves on."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_a_session_stops_while_a_step_a_checkpoint_and_a_validation_still_fit(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("framepred.training.progress.time", clock)
    pace, config = Pace(), TrainConfig(minutes=1)
    clock.now = 10.0  # before the first step
    pace.start()
    clock.now, pace.saving, pace.judging = 20.0, 3.0, 6.0  # two steps took 10 seconds
    assert not pace.late(config, 2)  # 20 + 5 + 3 + 6 are 34 of 60 seconds
    clock.now = 46.0  # six steps took 36 seconds: 46 + 6 + 3 + 6 are 61
    assert pace.late(config, 6) and not pace.late(TrainConfig(), 6)
    pace.judging = 5.0
    assert not pace.late(config, 6)


def test_a_compiled_session_does_not_take_its_first_step_for_a_usual_one(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("framepred.training.progress.time", clock)
    pace, config = Pace(), TrainConfig(minutes=1, compile="parts")
    pace.start()
    clock.now = 50.0  # it compiled
    pace.late(config, 1)
    clock.now = 54.0  # two more steps
    assert not pace.late(config, 3)  # 54 + 2 of 60 seconds


def test_parts_of_a_batch_and_cuda_graphs_exclude_each_other():
    TrainConfig(batch_size=8, accumulate=2, compile="parts")
    with pytest.raises(ValueError, match="compile='reduce-overhead' works with CUDA graphs.*use 'parts'"):
        TrainConfig(batch_size=8, accumulate=2, compile="reduce-overhead")


def test_clips_too_short_for_context_and_horizon_are_refused(clips, tmp_path):
    with pytest.raises(ValueError, match=r"clips have 5 frames; context 4 \+ horizon 2 need 6"):
        train(build("convlstm", "tiny"), clips, small(context=4), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- what it leaves behind -------------------------------------------------------------------------------------------


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(MovingDigits, "sample", lambda *args, **named: pytest.fail("it began to work"))


def test_run_folder_is_complete_and_loads(clips, tmp_path):
    out = tmp_path / "runs" / "first"
    model = build("convlstm", "tiny")
    history = train(model, clips, small(seed=7), out=out)
    assert {"config.json", "model.safetensors", "history.csv", "run.json"} <= {path.name for path in out.iterdir()}
    loaded = framepred.load(out)
    context, _ = clips.sample(2).split(3)
    assert torch.equal(loaded(context, 2).logits, model(context, 2).logits) and not loaded.training
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == history["loss"].tolist()
    record = json.loads((out / "run.json").read_text())
    assert record["network"] == "convlstm" and record["clips_seen"] == 8
    assert record["parameters"] == sum(p.numel() for p in model.parameters())
    assert record["training"]["seed"] == 7 and record["training"]["learning_rate"] == 1e-3
    digest = hashlib.sha256(bytes(clips.digits.images.flatten().tolist())).hexdigest()
    assert record["digits"] == {"source": "uci", "split": "test", "sha256": digest}
    assert record["clips"] == {"n_digits": 1, "n_frames": 5, "frame_size": 32, "speed": 0.1, "acceleration": 0.0}
    assert record["versions"]["torch"] == torch.__version__ and record["hardware"] and record["written"]


def test_a_run_of_another_network_is_never_overwritten(clips, tmp_path):
    train(build("convlstm", "tiny"), clips, small(), out=tmp_path)
    before = files(tmp_path)
    with pytest.raises((FileExistsError, ValueError), match=str(tmp_path)):
        train(build("spatiotemporal", "tiny"), clips, small(), out=tmp_path)
    assert files(tmp_path) == before


def test_unwritable_folder_is_told_before_any_work(clips, tmp_path, no_work):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermissionError, match=r"cannot write to .*file/run: .*choose another folder for out"):
        train(build("convlstm", "tiny"), clips, small(), out=tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "in the way"


def test_missing_run_lists_the_runs_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run at '.*nothing'.*published runs: "):
        framepred.load(tmp_path / "nothing")


def test_run_of_an_unknown_network_lists_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text('{"network": "transformer"}')
    with pytest.raises(ValueError, match="names the network 'transformer'; known: convlstm, spatiotemporal, vpn"):
        framepred.load(tmp_path)
