"""What is compiled, and that nothing of it stays. That compiled networks train the same: tests/test_resume.py."""

from __future__ import annotations

import collections
import contextlib
import copy
import subprocess
import sys

import pytest
import torch

import framepred as fp
from framepred.models import ConvLSTMCell
from framepred.models.layers.masked import ResidualBlock
from framepred.training.compilation import compiled


@pytest.mark.parametrize("network", ["convlstm", "spatiotemporal", "vpn"])
def test_parts_are_the_cells_and_the_blocks_and_are_given_back(network, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    model = fp.build(network, "tiny")
    names = {ConvLSTMCell: "update", ResidualBlock: "forward"}
    parts = [(module, names[type(module)]) for module in model.modules() if type(module) in names]
    assert parts
    with contextlib.suppress(KeyboardInterrupt), compiled(model, "parts"):
        assert all(name in vars(module) for module, name in parts)
        raise KeyboardInterrupt
    assert not any(name in vars(module) for module, name in parts)
    copy.deepcopy(model)


@pytest.fixture
def asked(monkeypatch):
    """What torch.compile was asked for, (function, options), and how often what it gave back was called, by function."""
    orders, calls = [], collections.Counter()

    def compile(function, **options):
        orders.append((function, options))

        def counted(*args, **keywords):
            calls[function] += 1
            return function(*args, **keywords)

        return counted

    monkeypatch.setattr(torch, "compile", compile)
    return orders, calls


@pytest.mark.parametrize("network", ["convlstm", "spatiotemporal", "vpn"])
def test_every_update_of_a_cell_and_every_residual_block_runs_compiled(network, asked):
    orders, calls = asked
    model = fp.build(network, "tiny")
    seen, target = torch.rand(1, 5, 1, 16, 16, generator=torch.Generator().manual_seed(0)).split([2, 3], 1)
    with compiled(model, "parts") as objective:
        objective(seen, target)

    def runs(kind):
        parts = [module for module in model.modules() if isinstance(module, kind)]
        return [sum(n for function, n in calls.items() if function.__self__ is part) for part in parts]

    assert set(runs(ConvLSTMCell)) == {2 + 3 - 1}  # the last prediction is not read
    assert all(runs(ResidualBlock))
    assert len(orders) == len(runs((ConvLSTMCell, ResidualBlock)))


@pytest.mark.parametrize("how", [True, "default", "reduce-overhead", "max-autotune"])
def test_a_way_to_compile_is_handed_on_with_the_whole_loss(how, asked):
    orders, calls = asked
    model = fp.build("convlstm", "tiny")
    with compiled(model, how) as objective:
        objective(*torch.rand(1, 4, 1, 16, 16, generator=torch.Generator().manual_seed(0)).split(2, 1))
    ((function, options),) = orders
    assert function == model.loss and calls[function] == 1
    assert (options.get("mode") or "default") == ("default" if how is True else how)


@pytest.mark.parametrize("before", [False, True])
def test_uncompiled_is_the_loss_itself_and_settings_are_restored(before, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    model = fp.build("convlstm", "tiny")
    with compiled(model) as objective:
        assert objective == model.loss and torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before


def test_another_way_is_refused():
    context = compiled(fp.build("convlstm", "tiny"), "fast")
    with pytest.raises(ValueError, match="compile is 'fast'; expected one of False, True, default"):
        context.__enter__()


MANY = """
import torch
import framepred as fp
from framepred.training.compilation import compiled

graphs = []

def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward

compile = torch.compile
torch.compile = lambda function, **options: compile(function, backend=backend, **options)
context, target = torch.rand(2, 2, 1, 16, 16), torch.rand(2, 2, 1, 16, 16)
for width in range(4, 24, 2):
    model, before = fp.build("convlstm", "tiny", hidden=(width,)), len(graphs)
    with compiled(model, "parts") as objective:
        objective(context, target)
    assert len(graphs) > before, width
"""


@pytest.mark.slow
def test_parts_of_many_networks_are_all_compiled():
    """PyTorch stops after eight forms of the same code, unless told otherwise; without the checks that tests switch on."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
