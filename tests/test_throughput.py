"""Measuring speed: what is timed, what is counted, what is kept."""

from __future__ import annotations

import json
import time

import pytest
import torch

import framepred as fp
from framepred.benchmark import throughput
from framepred.benchmark.throughput import Measurements, drawing, generating, load_measurements, peak, time_it, training
from framepred.models.flops import operations_per_clip
from framepred.training.step import TrainingStep


@pytest.fixture(scope="module")
def clips(uci):
    return fp.MovingDigits(uci, 1, n_frames=5, frame_size=32)


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
    counted = operations_per_clip(fp.build(network, "tiny"), 3, 2, 32)
    assert row["operations_per_second"] == pytest.approx(counted * row["clips_per_second"])


@pytest.mark.parametrize("way", ["plain", "eager"])
def test_what_is_timed_is_the_step_of_the_training_loop(way, clips, monkeypatch):
    made, original = [], TrainingStep.__call__
    monkeypatch.setattr(TrainingStep, "__call__", lambda self, k, loss: made.append(k) or original(self, k, loss))
    fp.train(fp.build("convlstm", "tiny"), clips, fp.TrainConfig(steps=2, batch_size=2, context=3, horizon=2))
    assert made == [0, 1]
    made.clear()
    training("convlstm", "tiny", way, clips, 2, "cpu", 0.01, context=3, horizon=2)
    assert made == list(range(len(made))) and len(made) > throughput.ROUNDS


def test_memory_kept_grows_with_the_batch(clips):
    one, four = (
        training("convlstm", "tiny", "eager", clips, n, "cpu", 0.01, context=3, horizon=2)["memory_bytes"]
        for n in (1, 4)
    )
    assert 2.5 * one < four < 4 * one  # the weights are kept once


def test_generator_and_drawing_are_measured(clips):
    row = generating(clips, 8, "cpu", 0.01)
    assert row["float32"] > 0 and row["uint8"] > 0
    row = drawing("tiny", "cpu", 0.01, frame_size=16)
    assert 0 < row["cached_seconds"] < row["naive_seconds"]


def test_peak_is_that_of_a_matrix_product():
    row = peak("cpu", 0.01, size=64)
    assert all(row[name] > 0 for name in ("fp32", "bf16", "bytes_per_second"))


def test_measurements_are_kept_one_by_one_and_not_taken_twice(tmp_path):
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
