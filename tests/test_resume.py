"""A training that is stopped, killed, spread out or moved: nothing of it is lost, and it is still the same training."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch import nn

import framepred
from framepred import runs
from framepred.data.glyphs import load_digits
from framepred.data.moving import MovingDigits
from framepred.evaluation import applicable
from framepred.models import Forecast, FramePredictor, build
from framepred.runs import folder as folders, record as records
from framepred.training import checkpoints, loop, validation
from framepred.training.checkpoints import list_checkpoints
from framepred.training.config import TrainConfig
from framepred.training.feedback import fed_back
from framepred.training.fits import check_fits
from framepred.training.loop import train
from framepred.training.optimisers import make_optimizers
from framepred.training.schedule import learning_rate, rate_share

SHAPE = {"n_digits": 1, "n_frames": 5, "frame_size": 32}
SMALL = {"steps": 6, "batch_size": 2, "context": 3, "horizon": 2, "log_every": 4, "precision": "fp32"}


def small(**changes):
    return TrainConfig(**{**SMALL, **changes})


@pytest.fixture(scope="module")
def clips(uci):
    return MovingDigits(uci, **SHAPE)


@pytest.fixture(scope="module")
def held_out():
    return MovingDigits(load_digits("uci", "validation"), **SHAPE)


class Interrupting(MovingDigits):
    """Clips that send this process signals, or do something else, when the clips from `at` on are asked for."""

    def __init__(self, clips, at, act):
        super().__init__(clips.digits, **SHAPE)
        self.at, self.act = at, act

    def sample(self, n, seed=0, start=0, *args, **kwargs):
        if start == self.at:
            self.act()
        return super().sample(n, seed, start, *args, **kwargs)


def stopping_after(steps, clips, config):
    return Interrupting(clips, (steps - 1) * config.batch_size, lambda: signal.raise_signal(signal.SIGTERM))


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def assert_same_history(a, b):
    pandas.testing.assert_frame_equal(a.drop(columns="seconds"), b.drop(columns="seconds"), check_exact=True)


def record(folder):
    return json.loads((Path(folder) / "run.json").read_text())


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(MovingDigits, "sample", lambda *args, **named: pytest.fail("it began to work"))


@pytest.fixture(scope="module")
def straight(clips):
    """What `small()` comes to without a stop: weights and history."""
    torch.set_num_threads(1)
    model = build("convlstm", "tiny")
    history = train(model, clips, small())
    return weights(model), history


# --- resuming --------------------------------------------------------------------------------------------------------


PHASED = {"ema": 0.9, "teacher_forcing": 0.5, "loss_on": "all", "optimizer": "muon", "log_every": 7}


@pytest.mark.parametrize("schedule", ["one-cycle", "warmup-stable-decay"])
@pytest.mark.parametrize("feedback", ["free-running", "scheduled-sampling-sigmoid"])
def test_the_recipe_resumes_bit_for_bit_in_every_phase(schedule, feedback, clips, tmp_path):
    # 10 steps: taught to 5, the rate stable to 6. Stopped in warm-up, while taught, between, and while the rate falls.
    config = small(steps=10, schedule=schedule, feedback=feedback, **PHASED)
    for out, stops in {"straight": [], "stopped": [1, 4, 6, 8]}.items():
        for stop in [*stops, 10]:
            model = build("convlstm", "tiny")
            history = train(model, stopping_after(stop, clips, config), config, out=tmp_path / out)
            assert len(record(tmp_path / out)["sessions"]) == [*stops, 10].index(stop) + 1
        if out == "straight":
            expected, rows = weights(model), history
    assert_same(weights(model), expected)
    assert_same_history(history, rows)
    a, b = (checkpoints.load_checkpoint(tmp_path / out / "checkpoints") for out in ("straight", "stopped"))
    assert len(a["optimizers"]) == 2  # Muon, and Adam for the rest
    for ours, theirs in zip(a["optimizers"], b["optimizers"], strict=True):
        for key, state in ours["state"].items():
            assert_same(state, theirs["state"][key])


@pytest.mark.parametrize("network", ["convlstm", "spatiotemporal", "vpn"])
def test_resumed_run_is_the_same_bit_for_bit(network, clips, tmp_path):
    config = small(
        steps=20,
        ema=0.9,
        feedback="scheduled-sampling",
        teacher_forcing=1,
        accumulate=2,
        optimizer="rmsprop",
        log_every=7,
    )
    whole = build(network, "tiny")
    history = train(whole, clips, config, out=tmp_path / "whole")
    train(build(network, "tiny"), stopping_after(10, clips, config), config, out=tmp_path / "halves")
    assert record(tmp_path / "halves")["steps"] == 10
    resumed = build(network, "tiny", seed=1)  # its weights come from the checkpoint
    assert_same_history(train(resumed, clips, config, out=tmp_path / "halves"), history)
    assert_same(weights(resumed), weights(whole))
    a, b = (torch.load(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("whole", "halves"))
    assert_same(a["model"], b["model"])
    for ours, theirs in zip(a["optimizers"], b["optimizers"], strict=True):
        for key, state in ours["state"].items():
            assert_same(state, theirs["state"][key])


def test_more_steps_continue_a_constant_schedule_bit_for_bit(clips, tmp_path):
    whole, halves = build("convlstm", "tiny"), build("convlstm", "tiny")
    history = train(whole, clips, small(steps=20, schedule="constant", log_every=5))
    train(halves, clips, small(steps=10, schedule="constant", log_every=5), out=tmp_path)
    assert_same_history(train(halves, clips, small(steps=20, schedule="constant", log_every=5), out=tmp_path), history)
    assert_same(weights(halves), weights(whole))
    assert record(tmp_path)["steps"] == 20 and len(record(tmp_path)["sessions"]) == 2


def grown(clips, out, at=()):
    """A run of 10 steps whose rate falls after 6, made one of 20; sessions of the longer run end after the steps `at`."""
    for steps, stops in ((10, [10]), (20, [*at, 20])):
        config = small(steps=steps, schedule="warmup-stable-decay", optimizer="muon", log_every=2)
        for stop in stops:
            model = build("convlstm", "tiny")
            train(model, stopping_after(stop, clips, config), config, out=out)
    return model


def test_a_longer_run_goes_on_from_where_its_rate_began_to_fall(clips, tmp_path):
    model = grown(clips, tmp_path / "grown")
    longer = small(steps=20, schedule="warmup-stable-decay", optimizer="muon", log_every=2)
    by_hand = build(
        "convlstm", "tiny"
    )  # steps 0 to 5 with the rates of the short plan, 6 to 19 with those of the long one
    plan = [rate_share(small(steps=10, schedule="warmup-stable-decay"), k) for k in range(6)]
    plan += [rate_share(longer, k) for k in range(6, 20)]
    optimizers = make_optimizers(by_hand, longer)
    for k, share in enumerate(plan):
        context, target = clips.sample(2, 0, 2 * k).split(3)
        by_hand.zero_grad()
        by_hand.loss(context, target)[0].backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, (0.02, 1e-3), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
    assert_same(weights(model), weights(by_hand))
    steps = pandas.read_csv(tmp_path / "grown" / "history.csv")["step"]
    assert steps.is_monotonic_increasing and steps.iloc[-1] == 20
    sessions = record(tmp_path / "grown")["sessions"]
    assert [(s["from_step"], s["to_step"]) for s in sessions] == [(0, 10), (6, 20)]  # what was tried has cost time, too


def test_a_grown_run_can_be_stopped_where_the_short_one_had_been(clips, tmp_path):
    assert_same(weights(grown(clips, tmp_path / "a")), weights(grown(clips, tmp_path / "b", at=[7, 9, 14])))


def test_a_run_that_was_cut_short_grows_from_where_it_was_then(clips, tmp_path):
    for steps, stop in ((10, 10), (20, 8), (12, 12), (20, 20)):  # the rate falls after 6, would after 12, does after 8
        config = small(steps=steps, schedule="warmup-stable-decay")
        train(build("convlstm", "tiny"), stopping_after(stop, clips, config), config, out=tmp_path)
    sessions = [(s["from_step"], s["to_step"]) for s in record(tmp_path)["sessions"]]
    assert sessions == [(0, 10), (6, 8), (8, 12), (8, 20)]


def test_a_grown_run_without_its_stable_checkpoint_goes_on_from_its_last(clips, tmp_path):
    config = small(steps=10, schedule="warmup-stable-decay")
    train(build("convlstm", "tiny"), clips, config, out=tmp_path)
    spoil(next((tmp_path / "checkpoints").glob("stable-*")), "a flipped bit")
    with pytest.warns(UserWarning, match=r"stable-.*is damaged"):
        train(build("convlstm", "tiny"), clips, dataclasses.replace(config, steps=12), out=tmp_path)
    assert [(s["from_step"], s["to_step"]) for s in record(tmp_path)["sessions"]] == [(0, 10), (10, 12)]


def test_a_stop_validates_and_leaves_the_better_weights(clips, held_out, tmp_path, monkeypatch):
    scores = iter([5.0, 3.0, 4.0, 6.0, 7.0])  # at step 2, at the stop after 3, at 4, and at 6
    monkeypatch.setattr(loop, "validate", lambda *_: next(scores))
    config = small(validate_every=2, log_every=1)
    train(build("convlstm", "tiny"), stopping_after(3, clips, config), config, out=tmp_path, validation=held_out)
    assert record(tmp_path)["kept"] == {"which": "best", "step": 3, "validation_nats": 3.0}
    assert_same(weights(framepred.load(tmp_path)), checkpoints.load_checkpoint(tmp_path / "checkpoints")["model"])
    # The run goes on as if it had not been stopped: the validation at the stop is not among its own.
    train(build("convlstm", "tiny"), clips, config, out=tmp_path, validation=held_out)
    assert record(tmp_path)["kept"] == {"which": "best", "step": 4, "validation_nats": 4.0}


def test_the_last_weights_are_kept_if_asked_for(clips, held_out, tmp_path, monkeypatch):
    scores = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(loop, "validate", lambda *_: next(scores))
    model = build("convlstm", "tiny")
    train(model, clips, small(validate_every=2, keep="last"), out=tmp_path, validation=held_out)
    assert record(tmp_path)["kept"] == {"which": "last", "step": 6, "validation_nats": 3.0}
    last = checkpoints.load_checkpoint(tmp_path / "checkpoints")["model"]
    assert_same(weights(model), last)


def test_finished_run_returns_its_history_at_once(clips, tmp_path, straight, monkeypatch):
    first = train(build("convlstm", "tiny"), clips, small(), out=tmp_path)
    model = build("convlstm", "tiny", seed=1)
    monkeypatch.setattr(MovingDigits, "sample", lambda *args, **named: pytest.fail("it began to work"))
    pandas.testing.assert_frame_equal(train(model, clips, small(), out=tmp_path), first)
    assert_same(weights(model), straight[0])
    for path in (tmp_path / "checkpoints").iterdir():  # as someone might who needs the space
        path.unlink()
    again = train(model, clips, small(), out=tmp_path)
    pandas.testing.assert_frame_equal(again, first)
    with pytest.raises(ValueError, match=r"no checkpoint to go on from.*warm_start"):
        train(model, clips, small(steps=8), out=tmp_path)


def test_minutes_end_a_session_that_the_next_call_resumes(clips, tmp_path, straight, capsys):
    model = build("convlstm", "tiny")
    for steps in range(1, 6):  # a budget too small for a step still makes one, so that any series of calls gets there
        history = train(model, clips, small(minutes=1e-6), out=tmp_path)
        assert history["step"].iloc[-1] == steps and record(tmp_path)["ended"] == "minutes"
        assert_same(weights(framepred.load(tmp_path)), weights(model))  # an unfinished run loads, too
    assert "stopped after step 5 of 6; the same call resumes" in capsys.readouterr().err
    assert_same_history(train(model, clips, small(), out=tmp_path), straight[1])
    assert_same(weights(model), straight[0])
    sessions = record(tmp_path)["sessions"]
    assert [session["to_step"] for session in sessions] == [1, 2, 3, 4, 5, 6] and sessions[-1]["ended"] == "finished"
    assert record(tmp_path)["seconds"] == pytest.approx(sum(session["seconds"] for session in sessions), abs=0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_run_after_its_step_with_a_checkpoint(number, clips, tmp_path):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    history = train(
        build("convlstm", "tiny"), Interrupting(clips, 4, lambda: signal.raise_signal(number)), small(), out=tmp_path
    )
    assert history["step"].tolist() == [3] and record(tmp_path)["ended"] == signal.Signals(number).name
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name.startswith("step-000000003-")
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.fixture
def ctrl_c():
    """Ctrl-C as at a terminal: a shell's background jobs ignore it, and so would tests that run in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_ctrl_c_stops_at_once(clips, tmp_path, ctrl_c):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(build("convlstm", "tiny"), Interrupting(clips, 4, twice), small(), out=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_in_a_thread_leaves_signals_alone(clips, tmp_path):
    thread = threading.Thread(target=lambda: train(build("convlstm", "tiny"), clips, small(), out=tmp_path))
    thread.start()
    thread.join()
    assert record(tmp_path)["ended"] == "finished"


# --- damage ----------------------------------------------------------------------------------------------------------


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == "a flipped bit":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if how == "half of it missing" else content)


@pytest.mark.parametrize("how", ["a flipped bit", "half of it missing"])
def test_damaged_checkpoint_is_named_and_the_one_before_used(how, clips, tmp_path, straight):
    config = small(checkpoint_minutes=0)
    train(build("convlstm", "tiny"), stopping_after(4, clips, config), config, out=tmp_path)
    three, four = list_checkpoints(tmp_path / "checkpoints")
    spoil(four, how)
    model = build("convlstm", "tiny")
    with pytest.warns(UserWarning, match=f"{four.name} is damaged"):
        assert_same_history(train(model, clips, config, out=tmp_path), straight[1])
    assert_same(weights(model), straight[0])
    assert record(tmp_path)["sessions"][-1]["from_step"] == 3 and four.with_name(four.name + ".damaged").exists()
    assert not three.exists()


def test_run_with_damaged_checkpoints_only_says_what_to_do(clips, tmp_path, no_work):
    config = small()
    folders.claim(tmp_path, records.describe(build("convlstm", "tiny"), clips, vars(config)))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"step-000000001-{'0' * 64}.pt").write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match=r"every checkpoint in .*warm_start"),
    ):
        train(build("convlstm", "tiny"), clips, config, out=tmp_path)


def test_full_disk_leaves_the_earlier_checkpoint_whole(clips, tmp_path, straight, monkeypatch):
    config, model = small(checkpoint_minutes=0), build("convlstm", "tiny")
    original = Path.write_bytes

    def write_bytes(path, content):
        if path.name.startswith(".step-000000003-"):
            original(path, bytes(content)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(
        OSError, match=r"No space left on device; the checkpoint of step 3 .*last whole one is .*step-000000002"
    ):
        train(model, clips, config, out=tmp_path)
    monkeypatch.undo()
    assert [path.name[5:14] for path in (tmp_path / "checkpoints").iterdir()] in (
        ["000000001", "000000002"],
        ["000000002", "000000001"],
    )
    train(model, clips, config, out=tmp_path)
    assert_same(weights(model), straight[0])


def test_non_finite_loss_names_the_last_good_checkpoint(clips, tmp_path, monkeypatch):
    model = build("convlstm", "tiny")
    original, calls = model.loss, []

    def loss(*arguments, **named):
        calls.append(None)
        value, forecast = original(*arguments, **named)
        return (value * torch.nan if len(calls) == 4 else value), forecast

    monkeypatch.setattr(model, "loss", loss)
    with pytest.raises(
        FloatingPointError,
        match=r"step 3 is nan.*clips are 6 to 7 of seed 9.*last good checkpoint is .*step-000000003-",
    ):
        train(model, clips, small(seed=9, checkpoint_minutes=0), out=tmp_path)
    saved = torch.load(list_checkpoints(tmp_path / "checkpoints")[-1])
    assert all(value.isfinite().all() for value in saved["model"].values())


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import framepred as fp
from framepred.training import checkpoints

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

how, nth, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
original, calls = checkpoints.write_whole, []

def write_whole(path, write):
    calls.append(path)
    if len(calls) == nth:
        if how == "half written":
            original(path, lambda temporary: (write(temporary), os.truncate(temporary, 1000), die()))
        if how == "not yet named":
            original(path, lambda temporary: (write(temporary), die()))
        original(path, write)  # "named", but the run folder does not know of it yet
        die()
    original(path, write)

checkpoints.write_whole = write_whole
clips = fp.MovingDigits(fp.load_digits("uci", "test"), **SHAPE)
fp.train(fp.build("convlstm", "tiny"), clips, fp.TrainConfig(**SMALL, checkpoint_minutes=0), out=out)
"""


no_sigkill = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")


def child(*arguments):
    script = CHILD.replace("**SHAPE", f"**{SHAPE}").replace("**SMALL", f"**{SMALL}")
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@no_sigkill
def test_run_killed_while_it_writes_a_checkpoint_resumes_from_the_one_before(clips, tmp_path, straight):
    child("half written", 4, tmp_path)
    assert len(list((tmp_path / "checkpoints").glob(".*.part"))) == 1
    model = build("convlstm", "tiny")
    assert_same_history(train(model, clips, small(checkpoint_minutes=0.0), out=tmp_path), straight[1])
    assert_same(weights(model), straight[0])
    assert record(tmp_path)["sessions"][-1]["from_step"] == 2  # the first checkpoint is that of step 0
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@no_sigkill
@pytest.mark.slow
def test_run_killed_again_and_again_is_the_same_in_the_end(clips, tmp_path, straight):
    for how, nth in [
        ("half written", 1),
        ("named", 1),
        ("not yet named", 2),
        ("named", 2),
        ("half written", 2),
        ("named", 1),
    ]:
        child(how, nth, tmp_path)
    model = build("convlstm", "tiny")
    assert_same_history(train(model, clips, small(checkpoint_minutes=0.0), out=tmp_path), straight[1])
    assert_same(weights(model), straight[0])
    assert_same(weights(framepred.load(tmp_path)), straight[0])


@no_sigkill
def test_run_killed_after_its_last_checkpoint_has_a_whole_folder_after_the_next_call(clips, tmp_path, straight):
    child("named", 7, tmp_path)
    assert record(tmp_path)["steps"] == 5
    train(build("convlstm", "tiny"), clips, small(checkpoint_minutes=0.0), out=tmp_path)
    assert record(tmp_path)["steps"] == 6
    assert_same(weights(framepred.load(tmp_path)), straight[0])


# --- several processes -----------------------------------------------------------------------------------------------

WORKERS = """
import os
import sys
import torch
torch.set_num_threads(1)
import framepred as fp

def work(out):
    clips = fp.MovingDigits(fp.load_digits("uci", "test"), **SHAPE)
    held_out = fp.MovingDigits(fp.load_digits("uci", "validation"), **SHAPE)
    config = fp.TrainConfig(**SMALL, validate_every=3, validation_clips=5)
    model = fp.build("convlstm", "tiny", seed=int(os.environ.get("RANK", 0)))  # all begin with the weights of the first
    fp.train(model, clips, config, out=out, validation=held_out)

if __name__ == "__main__":
    if sys.argv[1] == "notebook":  # which has trained by itself before
        work(sys.argv[2] + "-alone")
        from accelerate import debug_launcher
        debug_launcher(work, (sys.argv[2],), num_processes=2)
    else:
        work(sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torchrun", "notebook"])
def test_two_processes_train_as_one_does(how, clips, held_out, tmp_path):
    script = tmp_path / "workers.py"
    big = {**SMALL, "batch_size": 4}
    script.write_text(WORKERS.replace("**SHAPE", f"**{SHAPE}").replace("**SMALL", f"**{big}"))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if how == "torchrun" else []
    command = [sys.executable, *launcher, str(script), how, str(tmp_path / "two")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    model = build("convlstm", "tiny")
    config = small(batch_size=4, validate_every=3, validation_clips=5)
    history = train(model, clips, config, validation=held_out)
    two = pandas.read_csv(tmp_path / "two" / "history.csv")
    assert record(tmp_path / "two")["processes"] == 2 and record(tmp_path / "two")["clips_seen"] == 24
    pandas.testing.assert_frame_equal(two.drop(columns="seconds"), history.drop(columns="seconds"), rtol=1e-5)
    assert history["step"].tolist() == [3, 4, 6] and two["validation_nats"].notna().tolist() == [True, False, True]


# --- the options -----------------------------------------------------------------------------------------------------


def test_gradients_of_parts_add_up_to_that_of_the_batch(clips):
    def run(accumulate):
        model = build("convlstm", "tiny")
        return train(model, clips, small(batch_size=4, accumulate=accumulate, log_every=1))

    one, four = run(1), run(4)
    pandas.testing.assert_frame_equal(one.drop(columns="seconds"), four.drop(columns="seconds"), rtol=1e-4)


@pytest.mark.parametrize("decay", [0.05, 0.9])
def test_average_of_the_weights_has_its_closed_form(decay, clips):
    def after(steps, ema=0.0):
        model = build("convlstm", "tiny")
        if steps:
            train(model, clips, small(steps=steps, schedule="constant", ema=ema))
        return weights(model)

    averaged, (w0, w1, w2, w3) = after(3, decay), [after(k) for k in range(4)]
    if decay == 0.05:  # below the bound of the first steps: d³ w0 + (1 - d)(d² w1 + d w2 + w3)
        share = [0.05**3, 0.95 * 0.05**2, 0.95 * 0.05, 0.95]
    else:  # the bound, (1 + k)/(10 + k): 1/10, 2/11, 3/12
        share = [1 / 10 * 2 / 11 * 3 / 12, 9 / 10 * 2 / 11 * 3 / 12, 9 / 11 * 3 / 12, 9 / 12]
    for key in w0:
        expected = share[0] * w0[key] + share[1] * w1[key] + share[2] * w2[key] + share[3] * w3[key]
        torch.testing.assert_close(averaged[key], expected, atol=1e-6, rtol=1e-5)
    assert not torch.equal(averaged["head.weight"], w3["head.weight"])


def test_learning_rate_is_a_function_of_step_and_config():
    cosine = TrainConfig(steps=3, schedule="cosine", learning_rate=8.0)
    # the middles of three steps are at 30°, 90° and 150° of the half circle: (1 + cos)/2
    assert [learning_rate(cosine, k) for k in range(3)] == pytest.approx([4 + 2 * 3**0.5, 4, 4 - 2 * 3**0.5])
    decay = TrainConfig(steps=4, schedule="decay", learning_rate=1.0)
    assert [learning_rate(decay, k) for k in range(4)] == pytest.approx([10**-0.25, 10**-0.75, 10**-1.25, 10**-1.75])
    cycle = TrainConfig(steps=10, learning_rate=1.0)  # middle of the rise; then (1 + cos 10°)/2, …, (1 + cos 170°)/2
    assert learning_rate(cycle, 0) == pytest.approx(0.5)
    assert learning_rate(cycle, 1) == pytest.approx(0.99240388) and learning_rate(cycle, 9) == pytest.approx(0.00759612)
    assert learning_rate(TrainConfig(steps=9, schedule="constant", learning_rate=0.3), 7) == 0.3


@pytest.mark.parametrize("feedback", ["free-running", "teacher-forcing", "scheduled-sampling"])
def test_feedback_is_what_the_network_is_given(feedback, clips, monkeypatch):
    model = build("convlstm", "tiny")
    original, seen = model.loss, []

    def loss(context, target, **named):
        seen.append((target, named))
        return original(context, target, **named)

    monkeypatch.setattr(model, "loss", loss)
    train(
        model,
        clips,
        small(steps=4, batch_size=64, feedback=feedback, teacher_forcing=1 if feedback.startswith("scheduled") else 0),
    )
    for step, (target, named) in enumerate(seen):
        if feedback == "free-running":
            assert named == {}
        else:
            assert torch.equal(named["truth"], target)
        if feedback == "teacher-forcing" or step == 0:
            assert set(named) <= {"truth"}
        elif (
            feedback == "scheduled-sampling"
        ):  # 128 coins of probability 3/4, 1/2, 1/4; four standard deviations are 0.18
            assert named["truth_mask"].float().mean().item() == pytest.approx(1 - step / 4, abs=0.18)


def test_scheduled_feedback_belongs_to_clip_and_frame():
    config = TrainConfig(steps=10, feedback="scheduled-sampling", teacher_forcing=1, seed=3)
    target = torch.zeros(8, 5, 1, 32, 32)
    whole = fed_back(config, 5, 16, target)["truth_mask"]
    parts = [fed_back(config, 5, 16 + k, target[:4])["truth_mask"] for k in (0, 4)]
    assert torch.equal(torch.cat(parts), whole) and 0 < whole.float().mean() < 1
    later = fed_back(config, 8, 16, target)["truth_mask"]
    assert not (later & ~whole).any()  # as the probability falls, truths only turn into predictions


def test_channels_last_trains_the_same(clips, tmp_path, straight):
    history = train(build("convlstm", "tiny"), clips, small(channels_last=True), out=tmp_path)
    pandas.testing.assert_frame_equal(history.drop(columns="seconds"), straight[1].drop(columns="seconds"), rtol=1e-4)
    framepred.load(tmp_path)


COMPILED = """
import torch
torch.set_num_threads(1)
import framepred as fp
clips = fp.MovingDigits(fp.load_digits("uci", "test"), **SHAPE)
losses = {}
for how in (False, *HOW):
    model = fp.build(NETWORK, "tiny")
    losses[how] = fp.train(model, clips, fp.TrainConfig(**SMALL, compile=how))["loss"].tolist()
print(list(losses.values()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "how"), [("convlstm", (True, "parts")), ("spatiotemporal", ("parts",)), ("vpn", ("parts",))]
)
def test_compiled_network_trains_the_same(network, how):
    script = COMPILED.replace("**SHAPE", f"**{SHAPE}").replace("**SMALL", f"**{SMALL}")
    script = script.replace("HOW", repr(how)).replace("NETWORK", repr(network))
    # in a process of its own: the annotations that the tests enforce cannot be compiled
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plain, *compiled = json.loads(done.stdout)
    assert all(losses == pytest.approx(plain, rel=1e-3) for losses in compiled)


# --- validation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", ["free-running", "teacher-forcing"])
def test_validation_is_the_mean_over_held_out_clips(feedback, clips, held_out):
    model = build("convlstm", "tiny")
    config = small(steps=2, batch_size=4, validate_every=5, validation_clips=7, feedback=feedback)
    history = train(model, clips, config, validation=held_out)
    context, target = held_out.sample(7, validation.VALIDATION_SEED).split(3)
    forecast = model(context, 2, target if feedback == "teacher-forcing" else None)
    expected = framepred.cross_entropy(forecast.logits, target).mean().item()
    assert history["validation_nats"].tolist() == [pytest.approx(expected, rel=1e-5)]


def test_best_weights_are_kept_and_patience_ends_the_run(clips, held_out, tmp_path, monkeypatch):
    scores, seen = iter([9.0, 4.0, 5.0, 4.5, 1.0]), []

    def validate(model, *rest):
        seen.append(weights(model))
        return next(scores)

    monkeypatch.setattr(loop, "validate", validate)
    config = small(steps=20, validate_every=2, patience=2, log_every=3)
    model = build("convlstm", "tiny")
    history = train(model, clips, config, out=tmp_path, validation=held_out)
    assert history["step"].tolist() == [2, 3, 4, 6, 8]
    assert history["validation_nats"].dropna().tolist() == [9, 4, 5, 4.5]
    for kept in (weights(model), weights(framepred.load(tmp_path))):
        assert_same(kept, seen[1])
    assert (
        record(tmp_path)["kept"] == {"which": "best", "step": 4, "validation_nats": 4.0}
        and record(tmp_path)["ended"] == "patience"
    )
    again = train(build("convlstm", "tiny", seed=1), clips, config, out=tmp_path, validation=held_out)
    assert_same_history(again, history)
    # with more patience it goes on from the last weights, not from the best
    train(model, clips, small(**{**vars(config), "patience": 3, "steps": 10}), out=tmp_path, validation=held_out)
    assert record(tmp_path)["kept"] == {"which": "best", "step": 10, "validation_nats": 1.0}


def test_validation_resumes_bit_for_bit(clips, held_out, tmp_path):
    config = small(steps=8, validate_every=2, validation_clips=4, ema=0.5)
    whole, halves = build("convlstm", "tiny"), build("convlstm", "tiny")
    history = train(whole, clips, config, validation=held_out)
    train(halves, stopping_after(5, clips, config), config, out=tmp_path, validation=held_out)
    assert_same_history(train(halves, clips, config, out=tmp_path, validation=held_out), history)
    assert_same(weights(halves), weights(whole))


def test_validation_never_sees_test_or_training_digits(clips, uci, held_out, no_work):
    model = build("convlstm", "tiny")
    with pytest.raises(ValueError, match="validation shows test digits"):
        train(model, held_out, small(), validation=clips)
    with pytest.raises(ValueError, match="validation shows the digits trained on"):
        train(model, held_out, small(), validation=held_out)
    with pytest.raises(ValueError, match="patience is 3, but without validation"):
        train(model, clips, small(patience=3))
    with pytest.raises(ValueError, match="validation clips have 4 frames"):
        train(model, clips, small(), validation=MovingDigits(held_out.digits, 1, n_frames=4))


# --- one folder, one run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("seed", 0, 1),
        ("batch_size", 2, 4),
        ("learning_rate", 1e-3, 1e-2),
        ("schedule", "one-cycle", "cosine"),
        ("ema", 0.0, 0.9),
        ("feedback", "free-running", "teacher-forcing"),
    ],
)
def test_resuming_with_another_config_names_the_field(field, before, after, clips, tmp_path, no_work):
    model = build("convlstm", "tiny")
    folders.claim(tmp_path, records.describe(model, clips, vars(small())))
    with pytest.raises(ValueError, match=rf"another run: training\.{field} was {before!r} and is now {after!r}\."):
        train(model, clips, small(**{field: after}), out=tmp_path)


def test_resuming_with_another_network_or_digits_names_the_field(clips, held_out, tmp_path, no_work):
    model = build("convlstm", "tiny")
    folders.claim(tmp_path, records.describe(model, clips, vars(small())))
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(ValueError, match=r"architecture\.kernel_size was 3 and is now 5\."):
        train(build("convlstm", "tiny", kernel_size=5), clips, small(), out=tmp_path)
    with pytest.raises(ValueError, match="network was 'convlstm' and is now 'vpn'"):
        train(build("vpn", "tiny"), clips, small(), out=tmp_path)
    with pytest.raises(ValueError, match=r"digits\.split was 'test' and is now 'validation'"):
        train(model, held_out, small(), out=tmp_path)
    with pytest.raises(ValueError, match=r"clips\.speed was 0\.1 and is now 0\.2\."):
        train(model, MovingDigits(clips.digits, **SHAPE, speed=0.2), small(), out=tmp_path)
    with pytest.raises(ValueError, match="parent was None and is now 'other'"):
        train(model, clips, small(), out=tmp_path, warm_start="some/other")
    assert (tmp_path / "run.json").read_text() == before


def test_what_may_change_may_change(clips, tmp_path, straight):
    config = small(checkpoint_minutes=9.0)
    train(build("convlstm", "tiny"), stopping_after(2, clips, config), config, out=tmp_path)
    model = build("convlstm", "tiny")
    train(model, clips, small(minutes=9.0, checkpoint_minutes=1.0, log_every=1), out=tmp_path)
    assert_same(weights(model), straight[0])


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", "{}"), ("history.csv", ""), ("run.json", "[]"), ("run.json", "not JSON")]
)
def test_folder_of_something_else_is_left_alone(name, content, clips, tmp_path, no_work):
    (tmp_path / name).write_text(content)
    with pytest.raises(FileExistsError, match="choose another folder"):
        train(build("convlstm", "tiny"), clips, small(), out=tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, content)]


def test_parts_must_be_equal(clips):
    with pytest.raises(ValueError, match=r"batch_size 6 cannot be cut into 4 equal parts \(accumulate\)"):
        TrainConfig(batch_size=6, accumulate=4)
    with pytest.raises(ValueError, match="batch_size 6 cannot be cut into equal parts for 2 processes × 2"):
        check_fits(build("convlstm", "tiny"), clips, small(batch_size=6, accumulate=2), None, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_folder_in_which_another_process_trains_is_left_alone(clips, tmp_path, no_work):
    with (
        folders.held(tmp_path),
        pytest.raises(FileExistsError, match=f"another process is training in {tmp_path}; wait"),
    ):
        train(build("convlstm", "tiny"), clips, small(), out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks there")
@pytest.mark.filterwarnings("ignore:.*fork")  # Python 3.12 warns of forks where there are threads
def test_folder_is_free_again_whatever_was_forked_meanwhile(tmp_path):
    with folders.held(tmp_path):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with folders.held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_learning_rate_may_come_from_numpy(clips, tmp_path):
    rate = np.logspace(-4, -2, 3)[1]
    train(build("convlstm", "tiny"), clips, small(steps=2, learning_rate=rate, schedule="constant"), out=tmp_path)
    history = train(build("convlstm", "tiny"), clips, small(learning_rate=rate, schedule="constant"), out=tmp_path)
    assert history["step"].iloc[-1] == 6 and [s["from_step"] for s in record(tmp_path)["sessions"]] == [0, 2]


# --- a network of one's own ------------------------------------------------------------------------------------------


class Own(FramePredictor):
    """Notes what it sees, as layers with a batch norm do."""

    network = "own"
    one_step = False

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1))

    def forecast(self, context, horizon, truth=None, truth_mask=None):
        return Forecast(self.layer(context[:, -1])[:, None].expand(-1, horizon, -1, -1, -1))


def test_network_without_a_one_step_form_is_not_asked_for_one(clips, no_work):
    context, target = torch.zeros(1, 3, 1, 32, 32), torch.zeros(1, 2, 1, 32, 32)
    assert applicable(Own()) == ["rollout"]
    with pytest.raises(ValueError, match="truth was given, but own predicts all frames at once"):
        framepred.predict(Own(), context, target, "one-step")
    for asked in ({"feedback": "teacher-forcing"}, {"teacher_forcing": 0.4}):
        with pytest.raises(ValueError, match="but own has no one-step form; use 'free-running' and 0"):
            train(Own(), clips, small(**asked))
    with pytest.raises(ValueError, match="loss_on is 'all', but own does not predict the frames of the context"):
        train(Own(), clips, small(loss_on="all"))


def test_averaged_weights_come_with_what_the_layers_noted(clips):
    model = Own()
    train(model, clips, small(ema=0.9))
    assert model.layer[0].num_batches_tracked == 6 and model.layer[0].running_mean > 0


def test_network_of_ones_own_starts_warm_and_is_read_again_when_finished(clips, tmp_path):
    first, second = Own(), Own()
    train(first, clips, small(), out=tmp_path / "first")
    train(
        second, clips, small(steps=1, learning_rate=1e-9, seed=1), out=tmp_path / "2nd", warm_start=tmp_path / "first"
    )
    torch.testing.assert_close(second.layer[1].weight, first.layer[1].weight, rtol=0, atol=1e-6)
    shutil.rmtree(tmp_path / "first" / "checkpoints")
    again = Own()
    train(again, clips, small(), out=tmp_path / "first")
    assert_same(weights(again), weights(first))
    assert not again.training
    with pytest.raises(ValueError, match=r"names the network 'own'.*MyNetwork.from_pretrained\('.*first'\)"):
        framepred.load(tmp_path / "first")


# --- what a run leaves behind ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(clips, tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "first"
    train(build("convlstm", "tiny"), clips, small(), out=out)
    return out


def test_run_says_where_it_came_from(finished):
    run = record(finished)
    assert (run["network"], run["preset"], run["parent"], run["seed"]) == ("convlstm", "tiny", None, 0)
    assert run["clips_seen"] == 12 and run["ended"] == "finished" and run["seconds"] > 0
    assert {"framepred", "torch", "numpy", "python"} <= set(run["versions"]) and "commit" in run and run["hardware"]
    assert len(run["digits"]["sha256"]) == 64 and run["clips"]["frame_size"] == 32
    assert str(finished.parent) not in (finished / "run.json").read_text()


def test_commit_is_that_of_this_code_and_of_no_repository_around_it(tmp_path, monkeypatch):
    package = tmp_path / ".venv" / "framepred"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    monkeypatch.setattr(records, "PACKAGE", package)
    monkeypatch.setenv("FRAMEPRED_COMMIT", "that of this code")
    found = records.provenance(torch.device("cpu"))
    assert (found["commit"], found["modified"]) == ("that of this code", False)


def test_preset_is_named_only_where_it_is_one(clips):
    def preset(model):
        return records.describe(model, clips, vars(small()))["preset"]

    assert preset(build("vpn", "book")) == "book" and preset(build("convlstm", "patched")) == "patched"
    assert preset(build("spatiotemporal")) == "thesis" and preset(build("convlstm", "tiny", kernel_size=5)) is None


def test_warm_start_begins_with_the_weights_of_another_run_and_names_it(clips, tmp_path, finished, monkeypatch):
    given = []
    model = build("convlstm", "tiny", seed=5)
    original = model.loss
    monkeypatch.setattr(model, "loss", lambda *args, **named: given.append(weights(model)) or original(*args, **named))
    config = small(seed=1, steps=2)
    train(model, clips, config, out=tmp_path / "second", warm_start=finished)
    assert_same(given[0], weights(framepred.load(finished)))
    assert record(tmp_path / "second")["parent"] == "first"
    history = train(model, clips, small(seed=1, steps=3), out=tmp_path / "second", warm_start=finished)
    assert history["step"].iloc[-1] == 3 and len(given) == 3
    with pytest.raises(ValueError, match=r"weights of .*first.* \(convlstm\) do not fit this vpn"):
        train(build("vpn", "tiny"), clips, config, out=tmp_path / "third", warm_start=finished)


def test_warm_start_from_no_run_or_one_without_weights_leaves_no_folder(clips, tmp_path, finished):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(finished / "config.json", bare)
    for parent, message in ((tmp_path / "nowhere", "no run at .*nowhere"), (bare, "bare holds no weights")):
        with pytest.raises(FileNotFoundError, match=message):
            train(build("convlstm", "tiny"), clips, small(), out=tmp_path / "runs" / "new", warm_start=parent)
        assert not (tmp_path / "runs").exists()


def test_a_run_goes_on_when_the_one_that_it_started_from_is_gone(clips, tmp_path, finished):
    parent = shutil.copytree(finished, tmp_path / "parent")
    train(build("convlstm", "tiny"), clips, small(seed=1, steps=2), out=tmp_path / "new", warm_start=parent)
    shutil.rmtree(parent)
    train(build("convlstm", "tiny"), clips, small(seed=1, steps=3), out=tmp_path / "new", warm_start=parent)
    assert record(tmp_path / "new")["steps"] == 3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_published_run_loads_with_weights_rounded_to_half_precision(precision, finished, tmp_path, clips):
    published = runs.publish(finished, tmp_path / "convlstm-tiny", precision)
    assert {path.name for path in published.iterdir()} == {
        "config.json",
        "model.safetensors",
        "history.csv",
        "run.json",
    }
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    expected = {key: value.to(dtype).float() for key, value in framepred.load(finished).state_dict().items()}
    assert_same(weights(framepred.load(published)), expected)
    assert record(published) == {**record(finished), "weights": precision}
    size = (published / "model.safetensors").stat().st_size
    assert size < 0.6 * (finished / "model.safetensors").stat().st_size
    runs.publish(finished, published, precision)  # again, in place of the first
    history = train(build("convlstm", "tiny"), clips, small(), out=published)  # finished, so this only reads
    assert history["step"].iloc[-1] == 6


def test_publishing_refuses_what_it_cannot_do(finished, tmp_path):
    before = sorted(finished.iterdir())
    with pytest.raises(ValueError, match="to is the run's own folder"):
        runs.publish(finished, finished / ".." / finished.name)
    assert sorted(finished.iterdir()) == before
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        runs.publish(finished, tmp_path / "taken")
    with pytest.raises(FileNotFoundError, match="no run folder"):
        runs.publish(tmp_path / "taken", tmp_path / "copy")
    with pytest.raises(ValueError, match="unknown precision 'int8'; known: fp16, bf16"):
        runs.publish(finished, tmp_path / "copy", "int8")
    runs.publish(finished, tmp_path / "light", weights=False)
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        framepred.load(tmp_path / "light")


def test_weight_too_large_for_float16_is_not_published_as_infinity(clips, tmp_path):
    model = build("convlstm", "tiny")
    nn.init.constant_(model.head.bias, 1e5)
    train(model, clips, small(steps=1, learning_rate=1e-9), out=tmp_path / "run")
    with pytest.raises(ValueError, match="use precision='bf16'"):
        runs.publish(tmp_path / "run", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_scores_are_added_to_and_belong_to_the_weights(clips, tmp_path):
    train(build("convlstm", "tiny"), clips, small(steps=1), out=tmp_path)
    assert runs.load_scores(tmp_path) == {}
    first, second = np.arange(20.0).reshape(2, 10), np.ones((3, 10), np.float32)
    runs.save_scores(tmp_path, {"mnist-2/rollout": first}, {"mnist-2/rollout": "ab" * 32})
    runs.save_scores(tmp_path, {"uci-2/one-step": second})
    scores = runs.load_scores(tmp_path)
    assert set(scores) == {"mnist-2/rollout", "uci-2/one-step"} and scores["mnist-2/rollout"].dtype == np.float32
    np.testing.assert_array_equal(scores["mnist-2/rollout"], first)
    assert record(tmp_path)["test_sets"]["mnist-2/rollout"] == {"clips": 2, "sha256": "ab" * 32}
    with pytest.raises(ValueError, match="'nats' have shape"):
        runs.save_scores(tmp_path, {"nats": first})
    assert set(runs.load_scores(runs.publish(tmp_path, tmp_path / "published"))) == set(scores)
    train(build("convlstm", "tiny"), clips, small(steps=2), out=tmp_path)  # other weights: their scores are not known
    assert runs.load_scores(tmp_path) == {} and record(tmp_path)["test_sets"] == {}


def test_samples_are_grey_values_and_flow_in_half_precision(finished):
    frames, flow = torch.tensor([0, 0.5, 1]).reshape(1, 3, 1, 1, 1), torch.full((1, 3, 2, 1, 1), -1.5)
    runs.save_samples(finished, {"mnist-2/frames": frames, "mnist-2/flow": flow, "truth": np.full((1, 1), 7, np.uint8)})
    samples = runs.load_samples(finished)
    assert samples["mnist-2/frames"].dtype == np.uint8 and samples["mnist-2/frames"].ravel().tolist() == [0, 128, 255]
    assert samples["mnist-2/flow"].dtype == np.float16 and (samples["mnist-2/flow"] == -1.5).all()
    assert samples["truth"].tolist() == [[7]]
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        runs.save_samples(finished, {"frames": np.array([[1.5]])})


def test_files_that_a_killed_process_left_are_swept_up(clips, tmp_path):
    config = small(steps=2)
    folders.claim(tmp_path, records.describe(build("convlstm", "tiny"), clips, vars(config)))
    (tmp_path / ".history.csv.123.part").write_text("step,cl")
    train(build("convlstm", "tiny"), clips, config, out=tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert len(checkpoints.list_checkpoints(tmp_path / "checkpoints")) == 2
