r"""Schedulers of diffusers as black boxes: each formula on a smooth grid of its own, and each scheduler as it is shipped.

A *formula* audit trains the scheduler on n + 1 noise levels, uniform in log signal-to-noise, and visits all of them: labels are whole, nothing is
rounded, no step goes to the data.  With a *fine start* the first steps double from a small one, so that the first, of order 1, does not hide
the order of the others.  A *shipped* audit takes the scheduler with its 1000 training levels and the options that users have.  Arithmetic is in
float64 throughout: what is measured is the formula and the grid.
"""

from __future__ import annotations

import importlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingExtra
from .audits import AuditReport, audit
from .blackbox import Level, Model

Array = NDArray[np.float64]

__all__ = ["STEPS", "BrownianPath", "Case", "laboratory", "library", "quiet"]

_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
_SCALED = {"EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "LMSDiscrete", "DPMSolverSDE"}
_TOP, _LOW = 5.0, 0.1  # levels of the formula audits
STEPS = (8, 16, 32, 64, 128, 256)


@cache
def library() -> ModuleType:
    """The installed diffusers.

    Raises
    ------
    MissingExtra
        If it or torch is not there.
    """
    try:
        import torch  # noqa: F401

        return importlib.import_module("diffusers")
    except ImportError:
        raise MissingExtra("the audit of diffusers", "audit") from None


@cache
def laboratory() -> type:
    """A context in which torch computes in float64 only and takes its normals from ``draw``."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Laboratory(TorchFunctionMode):
        def __init__(self, draw: Callable[[], Any]) -> None:
            super().__init__()
            self.draw = draw

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in (torch.randn, torch.randn_like):
                return self.draw()
            given = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
            made = func(*(torch.float64 if value is torch.float32 else value for value in args), **given)
            return made.double() if isinstance(made, torch.Tensor) and made.dtype is torch.float32 else made

    return Laboratory


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log of diffusers: options are deprecated or changed on the way."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class BrownianPath:
    """Normals of a Brownian path in sigma, between any two of the levels and their geometric means: the noise of DPMSolverSDE."""

    def __init__(self, sigmas: Array, draw: Callable[[], Any]) -> None:
        levels = np.unique(sigmas[sigmas > 0.0])
        self.nodes = np.sort(np.concatenate([levels, np.sqrt(levels[1:] * levels[:-1])]))
        self._pieces: dict[int, Any] = {}
        self._draw = draw

    def piece(self, k: int) -> Any:
        """A new increment between neighbouring nodes."""
        return self._draw() * math.sqrt(self.nodes[k + 1] - self.nodes[k])

    def __call__(self, sigma: Any, sigma_next: Any) -> Any:
        """The increment between two nodes, divided by its standard deviation."""
        i, j = sorted(int(np.argmin(np.abs(self.nodes - float(end)))) for end in (sigma, sigma_next))
        for k in range(i, j):
            if k not in self._pieces:
                self._pieces[k] = self.piece(k)
        return sum(self._pieces[k] for k in range(i, j)) / math.sqrt(self.nodes[j] - self.nodes[i])


@dataclass(frozen=True, eq=False)
class Case:
    """One audit: a scheduler with options on a grid.

    Attributes
    ----------
    name, scheduler : str
        What the audit is called, and the class of the scheduler without its last word.
    claimed : float or None
        Order that its paper or its option ``solver_order`` names; None where labels are rounded and no order can show.
    kinds : tuple of str
        Kinds of prediction that it takes.
    options, ask : mappings
        Arguments of the constructor and of ``step``.
    calls : (int, int)
        Model calls of each step, and besides.
    shipped : bool
    fine : bool
        A finer start of the grid (formula audits).
    cut : bool
        Whether the last step, to the data, is left out (formula audits).
    stride : int
        Training levels for each step (formula audits).
    exact_transfer : bool
    steps : tuple of int
    """

    name: str
    scheduler: str
    claimed: float | None
    kinds: tuple[str, ...] = ("eps", "x0", "v")
    options: Mapping[str, Any] = field(default_factory=dict)
    ask: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[int, int] = (1, 0)
    shipped: bool = False
    fine: bool = False
    cut: bool = False
    stride: int = 1
    exact_transfer: bool = True
    steps: tuple[int, ...] = STEPS

    def report(self) -> AuditReport:
        """Run the audit."""
        return audit(
            self.run, span=self.span, levels=self.level, predicts=self.kinds, claimed=self.claimed, nfe=self.nfe,
            exact_transfer=self.exact_transfer, resolution=self.resolution, prior=self.prior if self.shipped else None, steps=self.steps,
            name=self.name, line=f"from sdekit.analysis import foreign; print(foreign.check({self.name!r}))",
        )  # fmt: skip

    def run(self, start: Array, model: Model, n: int, draw: Callable[[], Array]) -> Array:
        """All steps of the scheduler's own loop, on states as images of one channel."""
        import torch

        shape = (len(start), 1, start.shape[1])

        def normals() -> Any:
            return torch.from_numpy(draw()).reshape(shape)

        scheduler = self.scheduled(n, model.kind)
        with laboratory()(normals):
            if hasattr(scheduler, "noise_sampler"):
                scheduler.noise_sampler = BrownianPath(scheduler.sigmas.numpy(), normals)
            x = torch.from_numpy(start).reshape(shape)
            for label in scheduler.timesteps[: -1 if self.cut else None]:
                answer = model(scheduler.scale_model_input(x, label), label)
                x = scheduler.step(answer, label, x, **self.ask).prev_sample
        return np.asarray(x.numpy())

    def scheduled(self, n: int, kind: str) -> Any:
        """The scheduler, ready for ``n`` steps."""
        options = dict(self.options)
        if self.scheduler != "IPNDM":
            options["prediction_type"] = _NAMES[kind]
        if not self.shipped:
            table = self._smooth(n)
            n = (len(table) - 1) // self.stride + self.cut
            products = 1.0 / (1.0 + table**2)
            own = 1.0 - products / np.append(1.0, products[:-1]) if self.scheduler != "IPNDM" else np.sqrt(1.0 - products)[::-1].copy()
            options.update(trained_betas=own, num_train_timesteps=len(table))
        with quiet(), laboratory()(None):
            scheduler = getattr(library(), f"{self.scheduler}Scheduler")(**options)
            scheduler.set_timesteps(n)
        return scheduler

    def nfe(self, n: int) -> int:
        """Model calls that ``n`` steps should take."""
        each, more = self.calls
        return each * (n + (_doublings(n) if self.fine else 0)) + more

    def _smooth(self, n: int) -> Array:
        """Levels sigma of a formula audit, lowest first; such that float32 holds them exactly."""
        h = math.log(_TOP / _LOW) / n
        depth = np.arange(self.stride * n + 1) * (h / self.stride)
        if self.fine:
            depth = np.concatenate([[0.0], h * 0.5 ** np.arange(_doublings(n), 0, -1), depth[1:]])
        return np.asarray((_TOP * np.exp(-depth[::-1])).astype(np.float32), float)

    @cached_property
    def _trained(self) -> Array:
        """Levels sigma of the shipped training schedule."""
        products: Array = _ready(self, self.steps[0]).alphas_cumprod.numpy()
        return np.asarray(np.sqrt((1.0 - products) / products))

    def level(self, label: float, n: int) -> Level:
        """What a label means: variance preserving; log-linear between whole labels; an angle for IPNDM."""
        if self.scheduler == "IPNDM":
            return Level(math.cos(label * math.pi / 2), math.sin(label * math.pi / 2))
        table = self._trained if self.shipped else self._smooth(n)
        return _preserving(math.exp(np.interp(label, np.arange(len(table)), np.log(table))))

    def resolution(self, label: float) -> float:
        """Half the way to the farther of the neighbouring training levels; nothing in a formula audit."""
        if not self.shipped or self.scheduler == "IPNDM":
            return 0.0
        gaps, i = np.diff(np.log(self._trained)), int(label)
        return 0.5 * float(np.max(gaps[max(i - 1, 0) : i + 1]))

    def span(self, n: int) -> tuple[Level, Level]:
        """Levels of the first and the last state."""
        scheduler = _ready(self, n)
        if self.scheduler == "IPNDM":
            ends = [Level(float(scheduler.alphas[i]), float(scheduler.betas[i])) for i in (0, -1)]
        elif hasattr(scheduler, "sigmas"):
            last = self._smooth(n)[0] if self.cut else float(scheduler.sigmas[-1])
            scaled = self.scheduler in _SCALED
            ends = [Level(1.0, sigma) if scaled else _preserving(sigma) for sigma in (float(scheduler.sigmas[0]), last)]
        else:
            product = 1.0 if self.scheduler == "DDPM" else float(scheduler.final_alpha_cumprod)
            last = self._smooth(n)[0] if not self.shipped else math.sqrt((1.0 - product) / product)
            ends = [self.level(float(scheduler.timesteps[0]), n), _preserving(last)]
        return ends[0], ends[1]

    def prior(self, n: int) -> float:
        """Standard deviation of the shipped start."""
        return float(_ready(self, n).init_noise_sigma)


@lru_cache(maxsize=8)
def _ready(case: Case, n: int) -> Any:
    """A scheduler to look at, not to run."""
    return case.scheduled(n, case.kinds[0])


def _doublings(n: int) -> int:
    return math.ceil(math.log2(n))


def _preserving(sigma: float) -> Level:
    a = 1.0 / math.sqrt(1.0 + sigma * sigma)
    return Level(a, sigma * a)
