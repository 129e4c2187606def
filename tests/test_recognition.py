"""The classifier of glyphs: what it tells apart, how much blur it bears, and that windows are cut where glyphs are."""

import dataclasses

import pytest
import torch

from framepred.analysis import recognition
from framepred.analysis.recognition import (
    MOST_BLUR,
    GlyphClassifier,
    blur,
    blurred_to_match,
    cut_windows,
    distort,
    train_glyph_classifier,
)
from framepred.data.glyphs import load_digits
from framepred.data.moving import MovingDigits


def as_letters(digits):
    """Digits turned upside down and given other names: letters that need no file."""
    return dataclasses.replace(digits, images=digits.images.flip(1), classes=tuple("ABCDEFGHIJ"))


def without(digits, *labels):
    """The glyphs whose shape survives being turned over are no fair question."""
    keep = ~torch.isin(digits.labels, torch.tensor(labels))
    return dataclasses.replace(digits, images=digits.images[keep], labels=digits.labels[keep])


ALIKE = (0, 1, 3, 8)


@pytest.fixture(scope="module")
def halves():
    """Digits and letters, to train on and to test on."""
    return [
        (digits, as_letters(digits)) for digits in (without(load_digits("uci", s), *ALIKE) for s in ("train", "test"))
    ]


@pytest.fixture(scope="module")
def classifier(halves):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trained = train_glyph_classifier(*halves[0], steps=120)
    torch.set_num_threads(threads)
    return trained


def balanced_accuracy(classifier, digits, letters, sigma=0.05):
    """The mean of the shares of digits and of letters that are told to be what they are, after a blur."""
    shares = []
    for glyphs, is_digit in ((digits, True), (letters, False)):
        windows = blur(glyphs.images / 255, torch.full((len(glyphs),), sigma)).clamp(0, 1)
        shares.append(((classifier.p_digit(windows) > 0.5) == is_digit).float().mean().item())
    return sum(shares) / 2


def test_held_out_glyphs_are_told_apart(classifier, halves):
    digits, letters = halves[1]
    assert balanced_accuracy(classifier, digits, letters) > 0.9
    assert (classifier(digits.images).argmax(1) == digits.labels).float().mean() > 0.85
    assert (classifier(letters.images).argmax(1) - 10 == letters.labels).float().mean() > 0.8


def test_blur_as_wide_as_in_training_costs_little(classifier, halves):
    digits, letters = halves[1]
    sharp, blurred = (balanced_accuracy(classifier, digits, letters, sigma) for sigma in (0.05, 0.75 * MOST_BLUR))
    assert blurred > sharp - 0.08


@pytest.mark.slow
def test_mnist_digits_and_omniglot_letters_by_other_hands_are_told_apart(mnist):
    try:
        letters, others = (load_digits("omniglot-latin", split) for split in ("train", "test"))
    except ConnectionError:
        pytest.skip("Omniglot is not on this machine")
    digits = mnist("test")
    digits = dataclasses.replace(digits, images=digits.images[:2000], labels=digits.labels[:2000])
    classifier = train_glyph_classifier(mnist("train"), letters)
    assert classifier.classes == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") and classifier.n_digit_classes == 10
    # What is left is shapes that are both: 0 and O, 1 and L or I, 9 and Q.
    assert balanced_accuracy(classifier, digits, others) > 0.93
    assert balanced_accuracy(classifier, digits, others, sigma=1.5) > 0.9


def test_probabilities_are_over_digits_and_letters(classifier, halves):
    windows = halves[1][0].images[:7]
    probabilities = classifier(windows)
    assert probabilities.shape == (7, 20) and not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7))
    torch.testing.assert_close(classifier.p_digit(windows), probabilities[:, :10].sum(1))
    torch.testing.assert_close(classifier(windows.float() / 255), probabilities)  # bytes or grey values
    torch.testing.assert_close(classifier(windows[2:3]), probabilities[2:3])  # whatever shares the batch
    assert classifier(windows[:0]).shape == (0, 20)


def test_the_same_seed_gives_the_same_classifier(halves):
    before = torch.random.get_rng_state()
    first, again, other = (train_glyph_classifier(*halves[0], seed=seed, steps=3) for seed in (5, 5, 6))
    windows = halves[1][0].images[:5]
    assert torch.equal(first(windows), again(windows)) and not torch.equal(first(windows), other(windows))
    train_glyph_classifier(*halves[0], steps=1)
    unless_told = train_glyph_classifier(*halves[0], steps=3)
    assert torch.equal(unless_told(windows), train_glyph_classifier(*halves[0], seed=0, steps=3)(windows))
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random numbers are left alone


def test_rare_letters_weigh_as_much_as_common_digits(halves):
    digits, letters = halves[0]
    few = dataclasses.replace(letters, images=letters.images[:30], labels=letters.labels[:30])
    classifier = train_glyph_classifier(digits, few, steps=60)
    assert (classifier.p_digit(few.images) < 0.5).float().mean() > 0.8


def test_half_of_what_is_trained_on_are_letters_and_all_characters_of_a_half_are_as_frequent(halves, monkeypatch):
    def drawings(first, counts, classes):  # every drawing of a character has a grey value that no other character has
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        images = (first + labels).to(torch.uint8)[:, None, None].repeat(1, 28, 28)
        return dataclasses.replace(halves[0][0], images=images, labels=labels, classes=classes)

    seen = []
    monkeypatch.setattr(recognition, "distort", lambda windows, generator: seen.append(windows) or windows)
    # The digit 6 and the letter C are in no drawing.
    train_glyph_classifier(
        drawings(100, [1, 20, 5, 5, 5, 1], tuple("0123456")), drawings(200, [30, 1], tuple("ABC")), steps=40
    )
    grey = (torch.cat(seen)[:, 0, 0] * 255).round().long().tolist()
    shares = {value: grey.count(value) / len(grey) for value in (*range(100, 106), 200, 201)}
    assert sum(shares.values()) == pytest.approx(1) and shares[200] + shares[201] == pytest.approx(1 / 2, abs=0.02)
    for value, share in shares.items():
        assert share == pytest.approx(1 / 4 if value >= 200 else 1 / 12, abs=0.03)


def test_windows_are_cut_where_the_glyphs_are(uci):
    clips = MovingDigits(uci, 2, n_frames=12).sample(3)
    assert cut_windows(clips.frames, clips.positions).shape == (3, 12, 2, 28, 28)
    for glyph in range(2):
        windows = cut_windows(clips.alone(glyph), clips.positions)[:, :, glyph]
        torch.testing.assert_close(windows, (clips.glyphs[:, glyph, None] / 255).expand(-1, 12, -1, -1))


def test_windows_lie_in_frames_of_any_shape():
    frames = torch.arange(40.0 * 64).reshape(1, 1, 1, 40, 64)
    window = cut_windows(frames, torch.tensor([[[[36, 12]]]]))  # (x, y), the lowest place at the right border
    assert torch.equal(window[0, 0, 0], frames[0, 0, 0, 12:, 36:])
    for place in ([37, 12], [36, 13], [-1, 0], [0, -1]):
        with pytest.raises(ValueError, match="do not lie in frames"):
            cut_windows(frames, torch.tensor([[[place]]]))


def test_blur_is_a_gaussian_filter():
    from scipy.ndimage import gaussian_filter

    window = torch.zeros(1, 28, 28)
    window[0, 12:16, 10:13] = 1
    for sigma in (0.5, 1.0, 2.0):
        expected = gaussian_filter(window[0].numpy(), sigma, mode="constant", truncate=8)
        torch.testing.assert_close(
            blur(window, torch.tensor([sigma]))[0], torch.from_numpy(expected), atol=1e-4, rtol=0
        )
    torch.testing.assert_close(blur(window, torch.tensor([0.05])), window)
    assert blur(window.to("meta"), torch.ones(1, device="meta")).shape == window.shape  # wherever the tensors are


def test_a_glyph_that_was_only_blurred_and_faded_is_matched_exactly(uci):
    glyphs = uci.images[:6] / 255
    windows = torch.stack(
        [fade * blur(glyphs, torch.full((6,), s)) for s, fade in ((0.2, 1.0), (1.6, 0.7), (4.0, 0.5))], 1
    )
    matched, sigma = blurred_to_match(glyphs, windows)
    torch.testing.assert_close(matched, windows)
    torch.testing.assert_close(sigma, torch.tensor([0.2, 1.6, 4.0]).expand(6, 3))
    assert (recognition.SIGMAS[0], recognition.SIGMAS[-1]) == (0.2, 8.0)


@pytest.mark.parametrize("brightness", [1.0, 0.8], ids=["fading helps", "brighter would be better"])
def test_the_match_is_the_nearest_of_all_blurs_and_fadings(brightness, uci):
    glyphs = uci.images[:4] / 255
    random = torch.Generator().manual_seed(0)
    others = glyphs.roll(1, 0)[:, None] * torch.rand(4, 3, 28, 28, generator=random) + glyphs[:, None] / 4
    blurred = torch.stack([blur(glyphs, torch.full((4,), s)) for s in (0.6, 1.2, 2.0)], 1)
    windows = torch.cat([others, blurred], 1).clamp(0, 1)
    glyphs = brightness * glyphs
    matched, sigma = blurred_to_match(glyphs, windows)
    error = (matched - windows).square().sum((2, 3))
    found = []
    for s in recognition.SIGMAS:
        blurred = blur(glyphs, torch.full((4,), s))[:, None]
        found += [(fade * blurred - windows).square().sum((2, 3)) for fade in torch.linspace(0, 1, 101)]
    assert (error <= torch.stack(found).amin(0) + 1e-4).all()
    assert sigma.unique().numel() > 1


def test_a_blank_glyph_is_matched_by_nothing():
    matched, _ = blurred_to_match(torch.zeros(1, 28, 28), torch.rand(1, 2, 28, 28))
    assert torch.equal(matched, torch.zeros(1, 2, 28, 28))


def test_no_blur_makes_one_glyph_another(uci):
    glyphs = uci.images[:8] / 255
    others = glyphs.roll(1, 0)[:, None]
    matched, _ = blurred_to_match(glyphs, others)
    assert ((matched - others).square().sum((2, 3)) > 1).all() and matched.min() >= 0 and matched.max() <= 1


def test_distorted_glyphs_stay_grey_values_and_differ(uci):
    windows = uci.images[:1].expand(16, -1, -1) / 255
    distorted = distort(windows, torch.Generator().manual_seed(0))
    assert distorted.shape == windows.shape and distorted.min() >= 0 and distorted.max() <= 1
    assert len(distorted.flatten(1).unique(dim=0)) == 16
    ink = distorted.sum((1, 2)) / windows.sum((1, 2))
    assert ((ink > 0.3) & (ink < 2)).all()  # none is lost over the border


Y, X = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")  # from the middle


def distorted(window, n=600):
    """Many distortions of one picture; the k-th is the same whatever the picture."""
    return distort(window.expand(n, -1, -1), torch.Generator().manual_seed(0)).double()


def moments(windows):
    """Ink, middle (x, y), variances (x, y) and covariance of windows, each (N,)."""
    ink = windows.sum((1, 2))
    x, y = ((windows * axis).sum((1, 2)) / ink for axis in (X, Y))
    dx, dy = X - x[:, None, None], Y - y[:, None, None]
    return ink, x, y, *((windows * product).sum((1, 2)) / ink for product in (dx**2, dy**2, dx * dy))


def oval(sx, sy):
    return torch.exp(-((X / sx) ** 2 + (Y / sy) ** 2) / 2)


@pytest.fixture(scope="module")
def faded():
    """How bright each distortion leaves the middle of a white window, which no move, pen or blur changes."""
    return distorted(torch.ones(28, 28))[:, 14, 14]


def test_half_of_the_distorted_glyphs_are_faded_to_half_their_brightness_at_most(faded):
    sharp = faded > 0.9999
    assert sharp.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert 0.5 <= faded.min() < 0.51 and faded[~sharp].max() > 0.98
    assert faded[~sharp].mean().item() == pytest.approx(0.75, abs=0.02)


def test_distorted_glyphs_are_shifted_by_up_to_two_pixels_any_way():
    _, x, y, *_ = moments(distorted(oval(3.5, 3.5)))
    for shift in (x, y):
        assert abs(shift.mean()) < 0.15 and shift.std().item() == pytest.approx(2 / 3**0.5, abs=0.1)  # as uniform in ±2
        assert 1.8 < -shift.min() < 2.6 and 1.8 < shift.max() < 2.6


def test_distorted_glyphs_are_stretched_and_shrunk_by_about_a_tenth(faded):
    sharp = faded > 0.9999
    _, _, _, vx, vy, _ = moments(distorted(oval(3.5, 3.5)))
    for stretch in (vx.sqrt()[sharp] / 3.5, vy.sqrt()[sharp] / 3.5):
        assert 0.82 < stretch.min() < 0.9 and 1.1 < stretch.max() < 1.2


def test_distorted_glyphs_are_turned_and_leant_both_ways(faded):
    sharp = faded > 0.9999
    angles = []
    for sx, sy in ((4.5, 1.2), (1.2, 4.5)):  # lying and standing
        *_, vx, vy, vxy = moments(distorted(oval(sx, sy))[sharp])
        angles.append(torch.atan2(2 * vxy, (vx - vy) * (1 if sx > sy else -1)) / 2)
    lying, standing = angles
    # ±0.15 rad of turning moves both, ±0.15 of leaning the standing ones too: uniform in ±a has a deviation of a/√3.
    assert abs(lying.mean()) < 0.02 and lying.std().item() == pytest.approx(0.15 / 3**0.5, abs=0.01)
    assert abs(standing.mean()) < 0.03 and standing.std().item() == pytest.approx(0.15 * (2 / 3) ** 0.5, abs=0.015)
    assert lying.abs().max() < 0.2 and standing.abs().max() < 0.35


def test_distorted_strokes_are_bolder_or_thinner_by_up_to_a_third(faded):
    sharp = faded > 0.9999
    stroke = torch.zeros(28, 28)
    stroke[4:24, 14] = 1
    ink = distorted(stroke)[sharp].sum((1, 2)) / stroke.sum()
    # A stroke of one pixel has 1 + 2·pen of its ink when bolder, and 1 - pen when thinner; moving it costs some.
    assert 0.5 < ink.min() < 0.75 and 1.5 < ink.max() < 2 and 0.9 < ink.median() < 1.05


def test_distorted_glyphs_are_blurred_by_up_to_the_widest_blur(faded):
    sharp = faded > 0.9999
    dot = torch.zeros(28, 28)
    dot[13:15, 13:15] = 1
    _, _, _, vx, vy, _ = moments(distorted(dot))
    variance = (vx + vy) / 2
    assert variance[sharp].max() < 1.5 and variance[~sharp].max().item() == pytest.approx(MOST_BLUR**2, abs=1)
    assert variance[~sharp].median().item() == pytest.approx((MOST_BLUR / 2) ** 2, abs=0.6)  # sigma is uniform


def test_what_cannot_be_classified_is_refused(classifier, uci):
    with pytest.raises(ValueError, match="outside \\[0, 1\\]"):
        classifier(torch.full((1, 28, 28), 1.5))
    with pytest.raises(ValueError, match="outside \\[0, 1\\]"):
        classifier(torch.full((1, 28, 28), -0.5))
    with pytest.raises(ValueError, match="outside \\[0, 1\\]"):
        classifier.p_digit(torch.full((1, 28, 28), float("nan")))
    with pytest.raises(ValueError, match="0, 1, 2.* is a digit and a letter"):
        train_glyph_classifier(uci, uci)
    with pytest.raises(ValueError, match="steps is 0"):
        train_glyph_classifier(uci, as_letters(uci), steps=0)
    clips = MovingDigits(uci, 1, n_frames=4).sample(1)
    with pytest.raises(ValueError, match="do not lie in frames"):
        cut_windows(clips.frames, clips.positions + 40)


def test_a_classifier_is_as_large_as_its_classes():
    classifier = GlyphClassifier(tuple("01AB"), n_digit_classes=2)
    assert classifier.eval()(torch.rand(2, 28, 28)).shape == (2, 4)
    # Three convolutions without a bias, each with the scales and shifts of its normalisation; a linear layer.
    convolutions = (16 * 5 * 5 + 2 * 16) + (32 * 16 * 3 * 3 + 2 * 32) + (64 * 32 * 3 * 3 + 2 * 64)
    assert sum(p.numel() for p in classifier.parameters()) == convolutions + 64 * 3 * 3 * 4 + 4
