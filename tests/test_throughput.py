"""Measuring speed: what is timed, what is counted, what is kept."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import framepred as fp
from framepred import precision
from framepred.benchmark import throughput
from framepred.benchmark.reference import plain
from framepred.benchmark.throughput import Measurements, drawing, generating, load_measurements, peak, time_it, training
from framepred.models.flops import flops_per_clip
from framepred.models.vpn import Decoder
from framepred.training.step import TrainingStep


@pytest.fixture(scope="module")
def clips(uci):
    return fp.MovingDigits(uci, 1, n_frames=5, frame_size=32)


@pytest.fixture
def pretend(monkeypatch):
    """`pretend(clock)`: all clocks show what the function says, in seconds."""

    def use(clock):
        for name in ("process_time", "perf_counter"):
            monkeypatch.setattr(time, name, clock)

    return use


def test_a_slow_first_call_and_an_interruption_do_not_count(pretend):
    now, calls = 0.0, itertools.count()
    pretend(lambda: now)

    def run():
        nonlocal now
        k = next(calls)
        now += 1000 if k == 0 else 50 if k % 4 == 3 else 2

    assert time_it(run, "cpu", 1) == 2
    assert next(calls) == 7  # five rounds of one call, after the slow one and one that tells how many fit


@pytest.mark.parametrize("call", [0.001, 0.03])
def test_the_time_is_that_of_one_call_however_many_fill_the_seconds(call, pretend):
    now = 0.0
    pretend(lambda: now)

    def run():
        nonlocal now
        now += call

    for seconds in ((), (0.5,), (2,)):
        began = now
        assert time_it(run, "cpu", *seconds) == pytest.approx(call)
        assert now - began == pytest.approx(*(seconds or (1,)), rel=0.2)


def test_on_one_thread_the_time_of_the_processor_counts_and_on_several_that_of_the_clock():
    def nap():
        time.sleep(0.005)

    assert time_it(nap, "cpu", 0.01) < 0.0025  # the tests run on one thread
    torch.set_num_threads(2)
    assert time_it(nap, "cpu", 0.01) >= 0.005


def test_short_calls_are_timed_many_at_once():
    calls = []
    assert time_it(lambda: calls.append(0), "cpu", 0.05) < 1e-4
    assert len(calls) > 1000


@pytest.mark.parametrize("way", ["plain", "eager"])
@pytest.mark.parametrize("network", ["convlstm", "spatiotemporal", "vpn"])
def test_training_is_measured_in_clips_and_in_operations(network, way, clips):
    row = training(network, "tiny", way, clips, 2, "cpu", 0.01, context=3, horizon=2)
    assert row["clips_per_second"] > 0 and row["memory_bytes"] > 0
    counted = flops_per_clip(fp.build(network, "tiny"), 3, 2, 32)
    assert row["flops_per_second"] == pytest.approx(counted * row["clips_per_second"])


@pytest.mark.parametrize("way", ["plain", "eager"])
def test_what_is_timed_is_the_step_of_the_training_loop(way, clips, monkeypatch):
    made, original = [], TrainingStep.__call__
    monkeypatch.setattr(TrainingStep, "__call__", lambda self, k, loss: made.append(k) or original(self, k, loss))
    fp.train(fp.build("convlstm", "tiny"), clips, fp.TrainConfig(steps=2, batch_size=2, context=3, horizon=2))
    assert made == [0, 1]
    made.clear()
    training("convlstm", "tiny", way, clips, 2, "cpu", 0.01, context=3, horizon=2)
    assert made == list(range(len(made))) and len(made) > throughput.ROUNDS


def test_unless_told_a_clip_has_ten_frames_to_see_and_ten_to_predict(uci):
    row = training("convlstm", "tiny", "eager", fp.MovingDigits(uci, 1, frame_size=32), 1, "cpu", 0.001)
    counted = flops_per_clip(fp.build("convlstm", "tiny"), 10, 10, 32)
    assert row["flops_per_second"] == pytest.approx(counted * row["clips_per_second"])
    assert row["channels_last"] is False


def test_memory_kept_grows_with_the_batch(clips):
    one, four = (
        training("convlstm", "tiny", "eager", clips, n, "cpu", 0.01, context=3, horizon=2)["memory_bytes"]
        for n in (1, 4)
    )
    assert 2.5 * one < four < 4 * one  # the weights are kept once


@contextmanager
def convolutions(seen):
    """Meanwhile each convolution that training computes is noted: the type of its output, and its kernel then."""

    def note(module, inputs, output):
        if isinstance(module, nn.Conv2d) and torch.is_grad_enabled():
            seen.append((output.dtype, module.weight.detach().clone()))

    handle = register_module_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("computes", [True, False], ids=["bf16", "no bf16"])
@pytest.mark.parametrize("way", ["plain", "eager"])
def test_all_ways_but_plain_are_in_bfloat16_where_the_device_computes_with_it(way, computes, clips, monkeypatch):
    monkeypatch.setattr(precision, "computes_bf16", lambda kind: computes)
    seen = []
    with convolutions(seen):
        training("convlstm", "tiny", way, clips, 1, "cpu", 0.001, context=2, horizon=2)
    expected = torch.bfloat16 if computes and way == "eager" else torch.float32
    assert {dtype for dtype, _ in seen} == {expected}


@pytest.mark.parametrize("way", ["default", "parts"])
def test_a_way_to_compile_is_what_is_measured(way, clips, monkeypatch):
    orders, forgotten = [], []
    monkeypatch.setattr(torch, "compile", lambda function, **options: orders.append(function.__name__) or function)
    monkeypatch.setattr(torch.compiler, "reset", lambda: forgotten.append(way))
    row = training("convlstm", "tiny", way, clips, 1, "cpu", 0.001, context=2, horizon=2)
    assert orders == (["loss"] if way == "default" else 3 * ["update"])  # of three cells
    assert row["way"] == way and row["clips_per_second"] > 0
    assert forgotten == [way]  # what was compiled does not count against the next network
    training("convlstm", "tiny", "eager", clips, 1, "cpu", 0.001, context=2, horizon=2)
    assert forgotten == [way]


def test_a_network_that_cannot_be_compiled_gives_the_first_line_of_the_reason(clips, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("no compiler\nand a long explanation")

    monkeypatch.setattr(torch, "compile", lambda function, **options: fails)
    row = training("convlstm", "tiny", "default", clips, 1, "cpu", 0.001, context=2, horizon=2)
    assert row == {"way": "default", "error": "RuntimeError: no compiler"}


@pytest.mark.parametrize("channels_last", [True, False])
def test_networks_are_kept_in_the_memory_format_asked_for(channels_last, clips):
    seen = []
    with convolutions(seen):
        row = training(
            "convlstm", "tiny", "eager", clips, 1, "cpu", 0.001, channels_last=channels_last, context=2, horizon=2
        )
    kernels = [kernel for _, kernel in seen if kernel.shape[2:] == (3, 3)]
    assert {k.is_contiguous(memory_format=torch.channels_last) for k in kernels} == {channels_last}
    assert row["channels_last"] == channels_last


@pytest.mark.parametrize("way", ["plain", "eager"])
def test_every_step_makes_other_clips_and_updates_the_weights(way, uci):
    batches, seen = [], []

    class Counted(fp.MovingDigits):
        def sample(self, n, seed=0, start=0, *args, **kwargs):
            batches.append(range(start, start + n))
            return super().sample(n, seed, start, *args, **kwargs)

    with convolutions(seen):
        training(
            "convlstm", "tiny", way, Counted(uci, 1, n_frames=4, frame_size=32), 3, "cpu", 0.01, context=2, horizon=2
        )
    assert len(set().union(*batches)) == 3 * len(batches) > 9  # no clip twice
    heads = {tuple(kernel.flatten().tolist()) for _, kernel in seen if kernel.shape == (16, 32, 1, 1)}
    assert len(heads) == len(batches)


@pytest.mark.parametrize("way", ["plain", "eager"])
def test_clips_a_second_are_those_of_a_machine_whose_rate_is_known(way, clips, pretend):
    model = fp.build("convlstm", "tiny")
    frames = clips.sample(4).frames
    with FlopCounterMode(display=False) as counter:
        (plain(model) if way == "plain" else model).loss(frames[:, :3], frames[:, 3:])[0].backward()
    step = counter.get_total_flops() / 1e9  # seconds
    with FlopCounterMode(display=False) as counter:
        pretend(lambda: counter.get_total_flops() / 1e9)
        row = training("convlstm", "tiny", way, clips, 4, "cpu", 0.01, context=3, horizon=2)
    assert row["clips_per_second"] == pytest.approx(4 / step)
    assert row["start_seconds"] == pytest.approx(step)


def test_generator_and_drawing_are_measured(clips):
    row = generating(clips, 8, "cpu", 0.01)
    assert row["float32"] > 0 and row["uint8"] > 0
    row = drawing("tiny", "cpu", 0.01, frame_size=16)
    assert 0 < row["cached_seconds"] < row["naive_seconds"]


def test_what_is_measured_unless_told(clips, monkeypatch):
    asked = []
    monkeypatch.setattr(
        throughput, "time_it", lambda run, device, seconds, *of_rounds: asked.append(seconds) or 1.0
    )  # whatever is timed takes a second
    row = peak("cpu")
    assert row["size"] == 2048 and asked == 7 * [1]  # three sizes in two types, and a copy
    assert row["fp32"] == row["bf16"] == 2 * 2048**3
    assert row["bytes_per_second"] == 2 * 16 * 2048**2 * 2  # 16 such matrices of two bytes a number, read and written
    asked.clear()
    assert drawing("tiny", "cpu") == {"preset": "tiny", "cached_seconds": 1, "naive_seconds": 64 * 64 / 4}
    assert asked == [2, 2]
    asked.clear()
    generating(clips, 8, "cpu")
    assert asked == [1, 1]
    asked.clear()
    training("convlstm", "tiny", "eager", clips, 1, "cpu", context=2, horizon=2)
    assert asked == [5]


def test_speed_of_the_generator_is_that_of_frames_of_the_type(uci, pretend):
    now, batches = 0.0, []
    pretend(lambda: now)

    class Timed(fp.MovingDigits):
        def sample(self, n, seed=0, start=0, device="cpu", dtype=torch.float32):
            nonlocal now
            now += {torch.float32: 4.0, torch.uint8: 0.5}[dtype]
            batches.append(range(start, start + n))
            return super().sample(n, seed, start, device, dtype)

    row = generating(Timed(uci, 3, n_frames=2), 8, "cpu")
    assert row == {"n_digits": 3, "batch_size": 8, "float32": 8 / 4.0, "uint8": 8 / 0.5}
    assert len(set().union(*batches)) == 8 * len(batches)  # no clip twice


@pytest.mark.parametrize("pixels", [1, 3])
def test_drawing_naively_takes_a_run_of_the_decoder_for_every_pixel(pixels, pretend):
    seconds = 0.0
    pretend(lambda: seconds)

    def takes_two_seconds(module, inputs, output):
        nonlocal seconds
        seconds += 2 * isinstance(module, Decoder)
        assert len(output) == 1 and not torch.is_grad_enabled()  # one frame, and no training

    handle = register_module_forward_hook(takes_two_seconds)
    try:
        row = drawing("tiny", "cpu", 1e-6, frame_size=8, pixels=pixels)
    finally:
        handle.remove()
    assert row["naive_seconds"] == pytest.approx(2 * 8 * 8)


class Machine(TorchDispatchMode):
    """A machine whose clock goes ahead by what products and copies take on it; every other call is slow."""

    def __init__(self):
        super().__init__()
        self.now, self.calls = 0.0, itertools.count()
        # Operations a second, by the side of the matrices: the middle size suits it best.
        self.rates = {torch.float32: {64: 1e7, 32: 3e7, 16: 2e7}, torch.bfloat16: {64: 8e7, 32: 9e7, 16: 7e7}}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        slow = 3 if next(self.calls) % 2 else 1
        if func is torch.ops.aten.mm.default:
            (rows, inner), columns = args[0].shape, args[1].shape[1]
            # Each of the rows x columns entries is a sum of so many products.
            self.now += slow * rows * columns * (inner + inner) / self.rates[args[0].dtype][rows]
        if func is torch.ops.aten.copy_.default:
            self.now += slow * (args[0].nbytes + args[1].nbytes) / 1e6  # read and written
        return func(*args, **(kwargs or {}))


def test_peak_is_the_highest_rate_of_a_machine_whose_rates_are_known(pretend):
    with Machine() as machine:
        pretend(lambda: machine.now)
        row = peak("cpu", 1e-4, size=64)
    assert row["fp32"] == pytest.approx(3e7) and row["bf16"] == pytest.approx(9e7)
    assert row["bytes_per_second"] == pytest.approx(1e6)
    assert row["size"] == 64


def test_peak_is_that_of_a_matrix_product():
    row = peak("cpu", 0.01, size=64)
    assert all(row[name] > 0 for name in ("fp32", "bf16", "bytes_per_second"))


def test_measurements_are_kept_one_by_one_and_not_taken_twice(tmp_path):
    tmp_path = tmp_path / "a folder" / "that is new"
    first = Measurements(tmp_path, "cpu")
    first.measure("a", lambda: {"value": 1})
    assert json.loads(first.path.read_text())["rows"] == {"a": {"value": 1}}
    second = Measurements(tmp_path, "cpu")
    assert second.measure("a", lambda: pytest.fail("measured twice")) == {"value": 1}
    second.measure("b", lambda: {"value": 2})
    (record,) = load_measurements(tmp_path).values()
    assert record["rows"].keys() == {"a", "b"} and record["versions"]["torch"] == torch.__version__


def test_measurements_of_other_code_are_taken_again(tmp_path, monkeypatch):
    Measurements(tmp_path, "cpu").measure("a", lambda: {"value": 1})
    here = throughput.provenance
    monkeypatch.setattr(throughput, "provenance", lambda device: here(device) | {"commit": "another"})
    assert Measurements(tmp_path, "cpu").measure("a", lambda: {"value": 2}) == {"value": 2}


def test_out_of_memory_is_a_result(tmp_path):
    def too_large():
        raise torch.OutOfMemoryError("60 GB")

    assert Measurements(tmp_path, "cpu").measure("a", too_large) == {"error": "out of memory"}


def test_published_measurements_say_what_made_them():
    records = load_measurements()
    assert records
    for hardware, record in records.items():
        assert record["commit"] and not record["modified"] and record["versions"]["torch"]
        assert {"fp32", "bf16", "bytes_per_second"} <= record["rows"]["peak"].keys()
        assert hardware == record["hardware"]
