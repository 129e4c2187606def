"""What benchmarks share: the processor time of one thread, which what else the machine does hardly changes."""

import time

import pytest
import torch


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_turn(benchmark, one_thread):
    """Run several things round by round in turn: the seconds of each, by name, one for every round and the warm-up."""

    def measure(runs, rounds):
        seconds = {name: [] for name in runs}

        def once():
            for name, run in runs.items():
                began = time.process_time()
                run()
                seconds[name].append(time.process_time() - began)

        benchmark.pedantic(once, rounds=rounds, warmup_rounds=1)
        return seconds

    return measure
