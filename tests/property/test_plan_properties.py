"""Grids and plans on random processes: decreasing times, ends that stay, moves that follow each other, normals used once."""

from itertools import pairwise

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from processes import stable_processes

from sdekit import grids, methods, plans
from sdekit.plans import Jump
from sdekit.solve import program

PARTS = st.lists(st.floats(0.02, 0.95), min_size=2, max_size=2, unique=True)


@st.composite
def windows(draw, process):
    """A pair of levels inside those of the process, a factor of 1.2 apart at least."""
    low, high = (float(process.sigma_eff(p * process.T)) for p in sorted(draw(PARTS)))
    assume(high > 1.2 * low)
    return low, high


@given(st.data(), stable_processes(), st.integers(1, 30), st.floats(1.0, 9.0), st.booleans())
def test_grids_decrease(data, process, n, rho, zero):
    low, high = data.draw(windows(process))
    for grid in (grids.karras(n, low, high, rho, zero=zero), grids.logsnr(n, low, high, zero=zero)):
        times = grid.times(process)
        assert len(times) == n + 1
        assert np.all(np.diff(times) < 0.0)
        np.testing.assert_allclose(process.sigma_eff(times[0]), high, rtol=1e-9)
        assert times[-1] == 0.0 if zero else abs(float(process.sigma_eff(times[-1])) / low - 1.0) < 1e-9


@given(stable_processes(), st.integers(1, 30), st.floats(0.0, 0.9))
def test_grids_in_time_decrease(process, n, end):
    for grid in (grids.uniform(n, end * process.T), grids.quadratic(n, end * process.T)):
        times = grid.times(process)
        assert times[0] == process.T
        np.testing.assert_allclose(times[-1], end * process.T, atol=1e-15)
        assert np.all(np.diff(times) < 0.0)


@st.composite
def transformed(draw, process, low, high):
    """A plan over a grid that ends above the data, with one transform; a Restart interval inside the window."""
    grid = grids.logsnr(draw(st.integers(2, 6)), low, high)
    method = draw(st.sampled_from([methods.heun(noise=1.0), methods.exponential(2), methods.exponential(3, noise=1.0), methods.ddim()]))
    base = plans.run(grid, method)
    kind = draw(st.sampled_from(["run", "restart", "restart churn", "ancestral", "churn"]))
    if kind.startswith("restart"):
        a, b = sorted(draw(PARTS))
        bottom, top = (float(np.exp(np.log(low) + p * np.log(high / low))) for p in (a, b))
        assume(top > 1.01 * bottom)
        interval = (draw(st.integers(2, 4)), draw(st.integers(0, 3)), bottom, top)
        return plans.restart(grid, [interval], method=method, churn=0.05 if kind == "restart churn" else 0.0)
    if kind == "ancestral":
        return plans.ancestral(base, draw(st.floats(0.1, 0.5)))
    return plans.churn(base, draw(st.floats(0.1, 5.0))) if kind == "churn" else base


@settings(max_examples=40)
@given(st.data(), stable_processes(blocks=(1, 2)))
def test_transforms_keep_the_ends(data, process):
    low, high = data.draw(windows(process))
    plan = data.draw(transformed(process, low, high))
    assume(float(process.sigma_eff(0.0)) == 0.0)
    made = program(process, plan)
    ends = plan.grid.times(process)
    assert made.times[0] == ends[0]
    assert made.times[-1] == ends[-1]
    assert made.times.max() <= process.T
    for before, after in pairwise(made.items):
        assert before.s == after.t
    for move in made.moves:
        if isinstance(move, Jump):
            assert move.t > move.s
        else:
            assert np.all(np.diff(move.times) < 0.0)
    drawn = [a for item in made.items for a in item.addresses]
    assert len(set(drawn)) == len(drawn)
    with_end = program(process, plan.then(plans.denoise()))
    assert with_end.times[-1] == 0.0
    assert with_end.nfe == made.nfe + 1
