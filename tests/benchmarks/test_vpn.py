"""Drawing pixel by pixel with cached activations against without, and the memory of a training step."""

import time
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from framepred.benchmark.reference import draw_plainly
from framepred.models import build

# --- drawing a frame -------------------------------------------------------------------------------------------------

SIZE = 64
NAIVE_PIXELS = 8  # the naive way takes the same time for each pixel: that of these is scaled to the whole frame
SPEEDUP = {"book": 20, "compact": 50}
seconds: dict[tuple[str, str], float] = {}


@pytest.fixture(scope="module", params=SPEEDUP)
def decoder(request):
    """A preset's name, its decoder and what it is given: the context's share of its first layer."""
    model = build("vpn", request.param).eval()
    context = torch.rand(1, 2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden, _ = model.read(context)
        return request.param, model.decoder, model.share(hidden[:, -1])


def mean_field(logits, y, x):
    return logits.sigmoid()


def test_both_ways_draw_the_same(decoder):
    _, network, share = decoder
    logits, frame = network.draw(share, mean_field)
    torch.testing.assert_close(
        logits.flatten()[:4], draw_plainly(network, share, mean_field, 4)[0].flatten()[:4], atol=1e-5, rtol=0
    )
    with torch.no_grad():  # a naive step at each pixel of the frame drawn, all at once
        torch.testing.assert_close(logits, network(share, frame), atol=1e-5, rtol=0)


@pytest.mark.benchmark(group="vpn, drawing a 64×64 frame (naive: 8 of its 4,096 pixels)", timer=time.process_time)
@pytest.mark.parametrize("way", ["naive", "cached"])
def test_drawing(way, decoder, benchmark, one_thread):
    preset, network, share = decoder

    def draw():
        if way == "naive":
            draw_plainly(network, share, mean_field, NAIVE_PIXELS)
        else:
            network.draw(share, mean_field)

    benchmark.pedantic(draw, rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # None under --benchmark-disable
        scale = SIZE**2 / NAIVE_PIXELS if way == "naive" else 1
        seconds[preset, way] = scale * benchmark.stats.stats.min


@pytest.mark.parametrize("preset", SPEEDUP)
def test_cached_drawing_is_faster(preset):
    if not {(preset, "naive"), (preset, "cached")} <= seconds.keys():
        pytest.skip("both ways must be timed in this run")
    naive, cached = seconds[preset, "naive"], seconds[preset, "cached"]
    print(f"\ndrawing a frame, {preset}: naive {naive:.0f} s, cached {cached:.2f} s, {naive / cached:.0f}× faster")
    assert naive / cached >= SPEEDUP[preset]


# --- memory of a training step ---------------------------------------------------------------------------------------


class PeakMemory(TorchDispatchMode):
    """The most bytes that the tensors made under it held at any one time.

    Every operation's outputs are counted once per storage, until Python and the autograd graph let go of them. On the
    "meta" device tensors have sizes but no content, so a step that would take minutes is measured in seconds. What
    a kernel allocates inside itself is not seen.
    """

    def __init__(self):
        super().__init__()
        self.held, self.peak, self.known = 0, 0, weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage):
        if storage not in self.known:
            size = self.known[storage] = storage.nbytes()
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._release, size)

    def _release(self, size):
        self.held -= size


def training_memory(**changes):
    """Peak memory in bytes of a training step of the thesis' network on one clip, less that of the gradients."""
    with torch.device("meta"):
        model = build("vpn", "thesis", **changes)
        context, target = torch.zeros(2, 1, 10, 1, SIZE, SIZE)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # made before, so that they don't count as activations
    with PeakMemory() as memory:
        loss, _ = model.loss(context, target)
        loss.backward()
    return memory.peak


def test_checkpointing_fits_a_training_step_of_the_thesis_network_in_memory():
    plain, checkpointed = training_memory(), training_memory(checkpointing=True)
    print(f"\nactivations, thesis, batch 1, fp32: {plain / 1e9:.1f} GB, with checkpointing {checkpointed / 1e9:.2f} GB")
    assert checkpointed <= 2.5e9 and plain >= 3 * checkpointed


def test_peak_memory_counts_what_is_alive():
    with PeakMemory() as memory:
        a = torch.zeros(1000, device="meta")
        b = (a + 1)[:10]  # a view keeps the whole storage
        del a
        c = torch.zeros(500, device="meta")
    assert memory.peak == 2000 * 4 and memory.held == 1500 * 4
    del b, c
    assert memory.held == 0
