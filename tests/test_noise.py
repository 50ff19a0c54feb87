"""Addressed noise: the published answers of Philox, bitwise independence of everything but the address, and normality."""

import numpy as np
import pytest
from scipy import stats

from sdekit import BadInput
from sdekit.noise import CORRECTOR, DATA, METHOD, MOVE, PATH, PRIOR, Address, Addressed, Fast, philox

ALPHA = 1e-5
HERE = [Address(METHOD, 0, 3, 1)]
IDS = np.arange(64)


def bits(x):
    return np.ascontiguousarray(x).view(np.uint64)


def same(a, b):
    np.testing.assert_array_equal(bits(a), bits(b))


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter, key, answer):
    words = philox([int(w, 16) for w in counter.split()], tuple(int(w, 16) for w in key.split()))
    assert [f"{int(w):08x}" for w in words] == answer.split()


def test_philox_in_parallel_is_philox_one_by_one():
    rng = np.random.default_rng(0)
    counter = rng.integers(0, 1 << 32, size=(4, 7, 1), dtype=np.uint64)
    before = counter.copy()
    whole = philox(list(counter), (123, 456))
    np.testing.assert_array_equal(counter, before)
    for i in range(7):
        assert [int(w) for w in philox([int(c) for c in counter[:, i, 0]], (123, 456))] == [int(w[i, 0]) for w in whole]


def by_hand(seed, address, sample, pair):
    """Box-Muller on the 53-bit uniforms of one counter: (pair, sample, stream | leg | slot, step), key (low, high) of the seed."""
    counter = [pair, sample, address.stream << 28 | address.leg << 8 | address.slot, address.step]
    a, b, c, d = (int(w) for w in philox(counter, (seed & 0xFFFFFFFF, seed >> 32)))
    u, v = ((a >> 5) * 2**26 + (b >> 6) + 1) * 2.0**-53, ((c >> 5) * 2**26 + (d >> 6)) * 2.0**-53
    return np.sqrt(-2.0 * np.log(u)) * np.array([np.cos(2.0 * np.pi * v), np.sin(2.0 * np.pi * v)])


def test_normals_are_box_muller_of_the_words():
    seed, address, sample = (0xABCDEF01 << 32) + 0x12345678, Address(MOVE, 5, 77, 3), 4242
    drawn = Addressed(seed).draw([address], np.array([sample]), (5,))[0, 0]
    for pair in range(3):
        np.testing.assert_allclose(drawn[2 * pair : 2 * pair + 2], by_hand(seed, address, sample, pair)[: 5 - 2 * pair], rtol=1e-13)


def test_batch_and_order_of_samples_do_not_matter():
    source = Addressed(11)
    whole = source.draw(HERE, IDS, (3, 5))
    for batch in (1, 7, 64):
        parts = [source.draw(HERE, IDS[a : a + batch], (3, 5)) for a in range(0, 64, batch)]
        same(np.concatenate(parts, axis=1), whole)
    order = np.random.default_rng(0).permutation(64)
    same(source.draw(HERE, order, (3, 5)), whole[:, order])
    same(source.draw(HERE, np.array([9, 9, 2]), (3, 5)), whole[:, [9, 9, 2]])


def test_other_draws_do_not_matter():
    source = Addressed(11)
    alone = source.draw(HERE, IDS, (10,))
    several = source.draw([Address(PRIOR), *HERE, Address(DATA, slot=4)], IDS, (10,))
    same(several[1], alone[0])
    source.draw([Address(PATH, 1, 2, 3)], IDS, (1000,))
    same(source.draw(HERE, IDS, (10,)), alone)
    same(Addressed(11).draw(HERE, IDS, (10,)), alone)


def test_shape_only_arranges_the_elements():
    """Element e is the same number whatever the shape or the size of the draw."""
    source = Addressed(3)
    flat = source.draw(HERE, IDS, (24,))
    same(source.draw(HERE, IDS, (2, 3, 4)).reshape(1, 64, 24), flat)
    for size in (1, 2, 3, 7, 23):
        same(source.draw(HERE, IDS, (size,)), flat[..., :size])
    same(source.draw(HERE, IDS, ())[..., None], flat[..., :1])


@pytest.mark.parametrize("size", [(1 << 15) - 1, 1 << 15, (1 << 15) + 3, 100_001])
def test_chunks_have_no_seams(size):
    """Draws are made in pieces of 2^14 pairs: a long datum and a long batch equal their parts drawn alone."""
    source = Addressed(5)
    long = source.draw(HERE, np.array([6, 7]), (size,))
    same(long[:, 1:], source.draw(HERE, np.array([7]), (size,)))
    same(long[..., :100], source.draw(HERE, np.array([6, 7]), (100,)))
    tall = source.draw(HERE, np.arange(size), (1,))
    chosen = np.array([0, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, size - 1])
    same(tall[:, chosen], source.draw(HERE, chosen, (1,)))
    for pair in {0, 1, (size - 2) // 2, 1 << 13, (1 << 14) - 1, min(1 << 14, (size - 2) // 2)}:
        np.testing.assert_allclose(long[0, 1, 2 * pair : 2 * pair + 2], by_hand(5, HERE[0], 7, pair)[: size - 2 * pair], rtol=1e-12)


def test_every_part_of_the_address_counts():
    base, ids = Address(METHOD, 2, 5, 1), np.array([3])
    others = [base._replace(stream=MOVE), base._replace(leg=3), base._replace(step=6), base._replace(slot=2), base._replace(leg=5, step=2)]
    drawn = [Addressed(1).draw([a], ids, (8,)) for a in [base, *others]]
    drawn += [Addressed(2).draw([base], ids, (8,)), Addressed(1 + (1 << 32)).draw([base], ids, (8,)), Addressed(1).draw([base], np.array([4]), (8,))]
    flat = np.concatenate([d.ravel() for d in drawn])
    assert len(np.unique(flat)) == flat.size


@pytest.mark.torch
@pytest.mark.parametrize("size", [3, 40_001])
def test_torch_gets_the_same_bits(size):
    torch = pytest.importorskip("torch")
    for dtype, host in ((torch.float64, np.float64), (torch.float32, np.float32)):
        made = Addressed(9).draw(HERE, IDS[:3], (size,), torch.empty(0, dtype=dtype))
        assert made.dtype == dtype
        ref = Addressed(9).draw(HERE, IDS[:3], (size,), np.empty(0, host))
        assert ref.dtype == host
        np.testing.assert_array_equal(made.numpy(), ref)
        np.testing.assert_array_equal(ref, Addressed(9).draw(HERE, IDS[:3], (size,)).astype(host))


def standard(x):
    """Kolmogorov-Smirnov and the first four moments, each at ALPHA."""
    n = x.size
    assert stats.kstest(x, "norm").pvalue > ALPHA
    bound = stats.norm.isf(ALPHA / 2.0)
    for power, mean, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(np.mean(x**power) - mean) < bound * np.sqrt(variance / n)


@pytest.mark.parametrize("seed", [0, 1, (1 << 64) - 1])
def test_normality(seed):
    standard(Addressed(seed).draw(HERE, np.arange(2000), (100,)).ravel())  # over samples and elements
    steps = [Address(METHOD, leg, step, slot) for leg in range(10) for step in range(40) for slot in range(4)]
    standard(Addressed(seed).draw(steps, np.arange(8), (6,)).ravel())  # over addresses


def test_normality_of_each_half_of_a_pair():
    pairs = Addressed(4).draw(HERE, np.arange(60_000), (2,))[0]
    standard(pairs[:, 0])
    standard(pairs[:, 1])
    standard((pairs[:, 0] + pairs[:, 1]) / np.sqrt(2.0))
    assert stats.kstest(np.sum(pairs**2, axis=1), stats.chi2(2).cdf).pvalue > ALPHA


def test_tails_reach_far_enough():
    """2e6 normals exceed 4.5 about 13.6 times on both sides; 53-bit uniforms allow 8.5."""
    x = Addressed(8).draw(HERE, np.arange(200), (10_000,)).ravel()
    far = int(np.sum(np.abs(x) > 4.5))
    assert stats.poisson.cdf(far, x.size * 2.0 * stats.norm.sf(4.5)) > ALPHA
    assert stats.poisson.sf(far - 1, x.size * 2.0 * stats.norm.sf(4.5)) > ALPHA


def test_addresses_are_independent():
    """All pairs of 36 addresses that differ in stream, leg, step or slot: correlations of values and of squares."""
    where = [Address(stream) for stream in (PRIOR, METHOD, MOVE, CORRECTOR, PATH, DATA)]
    where += [Address(METHOD, leg=i) for i in range(1, 11)] + [Address(METHOD, step=i) for i in range(1, 11)]
    where += [Address(METHOD, slot=i) for i in range(1, 11)]
    n = 40_000
    x = Addressed(2).draw(where, np.arange(n), ())
    bound = stats.norm.isf(ALPHA / (2.0 * 36 * 35 / 2))
    for y in (x, (x * x - 1.0) / np.sqrt(2.0)):
        correlation = y @ y.T / n - np.diag(np.mean(y * y, axis=1))
        assert np.max(np.abs(correlation)) * np.sqrt(n) < bound


def test_samples_elements_and_seeds_are_independent():
    n = 40_000
    bound = stats.norm.isf(ALPHA / 200.0)
    where = [Address(METHOD, step=i) for i in range(n)]
    samples = Addressed(0).draw(where, np.arange(6), (4,)).reshape(n, 24).T
    seeds = np.stack([Addressed(s).draw(where, np.array([0]), ())[:, 0] for s in (0, 1, 2, 1 << 32)])
    for y in (samples, seeds):
        correlation = y @ y.T / n
        np.fill_diagonal(correlation, 0.0)
        assert np.max(np.abs(correlation)) * np.sqrt(n) < bound
    lagged = samples[0, 1:] @ samples[0, :-1] / n
    assert abs(lagged) * np.sqrt(n) < bound


@pytest.mark.parametrize(
    "address",
    [
        Address(16),
        Address(-1),
        Address(METHOD, leg=1 << 20),
        Address(METHOD, leg=-1),
        Address(METHOD, slot=256),
        Address(METHOD, slot=-1),
        Address(METHOD, step=1 << 32),
        Address(METHOD, step=-1),
    ],
)
def test_addresses_outside_the_counter(address):
    with pytest.raises(BadInput, match="noise address"):
        Addressed(0).draw([address], IDS, (1,))


def test_the_last_addresses_are_drawn():
    last = Address(15, (1 << 20) - 1, (1 << 32) - 1, 255)
    x = Addressed((1 << 64) - 1).draw([last, Address(0)], np.array([0, (1 << 32) - 1]), (2,))
    assert len(np.unique(x)) == 8


@pytest.mark.parametrize("ids", [[-1], [1 << 32], [0, 1 << 33]])
def test_ids_outside_the_counter(ids):
    with pytest.raises(BadInput, match="ids"):
        Addressed(0).draw(HERE, np.array(ids), (1,))


@pytest.mark.parametrize("seed", [-1, 1 << 64, 0.5, "0", None, True])
def test_bad_seed(seed):
    with pytest.raises(BadInput, match="seed"):
        Addressed(seed)


def test_fast_is_another_stream_with_the_same_law():
    fast = Fast(3)
    x = fast.draw(HERE, np.arange(2000), (100,))
    standard(x.ravel())
    assert not np.array_equal(fast.draw(HERE, np.arange(2000), (100,)), x)  # it moves on: no address
    np.testing.assert_array_equal(Fast(3).draw(HERE, np.arange(2000), (100,)), x)
    assert abs(np.corrcoef(x.ravel(), Addressed(3).draw(HERE, np.arange(2000), (100,)).ravel())[0, 1]) < 0.01


@pytest.mark.torch
def test_fast_on_torch():
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state()
    made = [Fast(3).draw(HERE, np.arange(2000), (100,), torch.empty(0, dtype=torch.float32)) for _ in range(2)]
    assert torch.equal(made[0], made[1])
    assert made[0].dtype == torch.float32
    standard(made[0].numpy().astype(float).ravel())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.torch
def test_the_generator_of_torch_for_numpy_arrays():
    """The same stream as torch's arrays get; float32 is drawn as such."""
    torch = pytest.importorskip("torch")
    ids = np.arange(2000)
    for kind, dtype in ((np.float32, torch.float32), (np.float64, torch.float64)):
        mine = Fast(3, "torch").draw(HERE, ids, (100,), np.empty(0, kind))
        assert mine.dtype == kind
        np.testing.assert_array_equal(mine, Fast(3).draw(HERE, ids, (100,), torch.empty(0, dtype=dtype)).numpy())
    assert Fast(3).draw(HERE, ids, (2,), np.empty(0, np.float32)).dtype == np.float32
    with pytest.raises(BadInput):
        Fast(3, "jax")
