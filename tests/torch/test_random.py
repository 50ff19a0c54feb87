"""Normals made by torch on a device, tried on the CPU: the same integers as the host's, the same normals to rounding."""

import numpy as np
import pytest
import torch

from sdekit.noise import METHOD, PRIOR, Address, Addressed
from sdekit.noise import philox as on_host
from sdekit.torch.random import normals, normals_each, philox


def test_known_answers_of_philox():
    """Salmon et al.'s test vectors: all zeros, all ones, and the digits of pi."""
    cases = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ]
    for counter, key, words in cases:
        assert tuple(int(word) for word in philox([torch.tensor(c) for c in counter], key)) == words


def test_the_integers_are_the_hosts():
    counter = np.random.default_rng(0).integers(0, 1 << 32, (4, 1000), dtype=np.uint64)
    made = philox([torch.from_numpy(word.astype(np.int64)) for word in counter], (7, 1 << 31))
    for ours, theirs in zip(made, on_host(counter, (7, 1 << 31)), strict=True):
        np.testing.assert_array_equal(ours.numpy().astype(np.uint64), theirs)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_the_normals_are_the_hosts_to_rounding(size, monkeypatch):
    monkeypatch.setattr("sdekit.torch.random._CHUNK", 64)  # several chunks
    addresses = [Address(PRIOR), Address(METHOD, 3, 1 << 31, 255), *(Address(METHOD, 0, i) for i in range(40))]
    ids, seed = np.array([0, 5, 123_456_789]), (3 << 32) + 11
    lines = np.array([(a.stream << 28 | a.leg << 8 | a.slot, a.step) for a in addresses], np.uint64)
    made = normals(seed, lines, ids, size, torch.empty(0, dtype=torch.float64))
    np.testing.assert_allclose(made.numpy(), Addressed(seed).draw(addresses, ids, (size,)), rtol=0, atol=4e-15)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_rows_with_addresses_of_their_own(size, monkeypatch):
    """What adaptive steps draw on a device: each sample at a step of its own, the host's normals to rounding."""
    monkeypatch.setattr("sdekit.torch.random._CHUNK", 16)  # several chunks
    addresses, ids, steps = [Address(METHOD, 3, 0, 1), Address(PRIOR)], np.array([0, 5, 123_456_789, 7]), np.array([0, 9, (1 << 32) - 1, 2])
    words = Addressed(11 << 33).words(addresses, steps, ids)
    want = Addressed(11 << 33).at(words, words, size).reshape(2, 4, size)
    for i, address in enumerate(addresses):
        for j, step in enumerate(steps):
            np.testing.assert_array_equal(want[i, j], Addressed(11 << 33).draw([address._replace(step=int(step))], ids[j : j + 1], (size,))[0, 0])
    made = normals_each(11 << 33, torch.from_numpy(words), size, torch.empty(0, dtype=torch.float64))
    np.testing.assert_allclose(made.numpy(), want.reshape(8, size), rtol=0, atol=4e-15)


def test_draws_for_a_device_are_made_there(monkeypatch):
    """A tensor that is not on the CPU gets its normals from the device's generator."""
    seen = []

    class Elsewhere:
        type = "cuda"

    class Reference(torch.Tensor):
        device = Elsewhere()

    empty = torch.empty(0, dtype=torch.float64)
    monkeypatch.setattr("sdekit.torch.random.normals_each", lambda *args: seen.append(args) or normals_each(*args[:-1], empty))
    words = Addressed(3).words([Address(METHOD)], np.array([4, 1]), np.array([2, 8]))
    made = Addressed(3).at(words, torch.from_numpy(words), 3, empty.as_subclass(Reference))
    assert len(seen) == 1
    np.testing.assert_allclose(made.numpy(), Addressed(3).at(words, words, 3), atol=4e-15)
