"""sdekit's methods, grids and plans as a scheduler of diffusers.

The loop and the network stay diffusers': ``timesteps`` has one label for each model call, and ``step`` takes one answer.  Between calls the
sample is what the network sees next, in the variance-preserving scale, whatever the process of the sampler is.

>>> pipeline = use_in(DDPMPipeline.from_pretrained(...), method=sk.methods.unipc(2), grid=sk.grids.karras(10, 0.02, 80.0))
>>> pipeline(num_inference_steps=10)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import BadInput, MissingExtra, unknown
from ..grids import Grid, sigmas
from ..kernel import Kernel
from ..modes import Modes
from ..noise import PRIOR, Address, Addressed
from ..plans import Plan, run
from ..process import Process
from ..record import from_record, to_record
from ..solve import Program, program
from ..tableau import Rows
from .adapters import label_of, on_host, wide
from .conventions import denoised, kind_of, library, table_of, without_variance
from .guidance import clipped, thresholded
from .stepping import Stepper, calls

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

_diffusers = library()
from diffusers import ConfigMixin, SchedulerMixin  # noqa: E402  (diffusers looks for these names here when it loads a pipeline)

__all__ = ["SdekitScheduler", "use_in"]

_OWN = "the user's own"  # in a configuration: what cannot be written


class SdekitScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A scheduler that runs any fixed-grid method, or plan, on a network of diffusers.

    Parameters
    ----------
    num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr, prediction_type
        What the network was trained on, as in diffusers.
    timestep_spacing, steps_offset
        Labels of the steps, where no grid is given; the last step then goes to the data.
    clip_sample, clip_sample_range, thresholding, dynamic_thresholding_ratio, sample_max_value
        Limits of the denoised data, as in diffusers.
    method : Method or record, optional
        ``exponential(2)`` when absent.
    grid : Grid or record, optional
    plan : Plan or record, optional
        In the place of method and grid.  One that begins by raising the level starts at the raised level.
    process : Process or record, optional
        Of the sampler; that of the schedule when absent.  Blocks beyond the first are drawn given the first.
    rounding : {"exact", "nearest"}
        Labels of levels between two, see :class:`~sdekit.torch.adapters.Diffusers`.
    seed : int, optional
        Addressed noise, in the place of the generators: sample ``i`` then does not depend on the batch.

    Attributes
    ----------
    timesteps : tensor
        A label for each model call; whole numbers if all are.
    order : int
        Model calls of a step, 1 where steps differ.
    init_noise_sigma : float
        1: the first sample is standard normal.

    Raises
    ------
    BadInput
        For anything that does not fit together.
    """

    order = 1
    init_noise_sigma = 1.0
    _compatibles = [kind.name for kind in _diffusers.schedulers.KarrasDiffusionSchedulers]  # noqa: RUF012  (their options are not worth a warning)

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        method: Any = None,
        grid: Any = None,
        plan: Any = None,
        process: Any = None,
        rounding: str = "exact",
        seed: int | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        objects = {name: given[name] for name in ("method", "grid", "plan", "process")}
        self.register_to_config(**{**given, **{name: _written(value) for name, value in objects.items()}})
        made = {name: _read(name, value) for name, value in objects.items()}
        if made["plan"] is not None and (made["method"] is not None or made["grid"] is not None):
            raise BadInput("give either a plan, or a method and a grid: a plan has its own")
        if rounding not in ("exact", "nearest"):
            raise unknown("rounding", rounding, ["exact", "nearest"])
        if isinstance(made["process"], Modes):
            raise BadInput(
                f"process {made['process'].name!r} has another noise level in each mode, and the networks of diffusers know one: answer a"
                " sdekit.torch.stepping.Stepper with a model of all levels, or use sdekit.sample"
            )
        self.table, self.kind = table_of(self.config), kind_of(self.config)
        self.process: Process = self.table.process if made["process"] is None else made["process"]
        self._plan, self._method, self._grid = made["plan"], made["method"], made["grid"]
        self._noise = _Generators() if seed is None else Addressed(seed)
        self.timesteps = torch.from_numpy(np.arange(len(self.table))[::-1].copy())
        self.num_inference_steps: int | None = None
        self._prog: Program | None = None
        self._stepper: Stepper | None = None
        self._handed: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def extract_init_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """As diffusers does, but with the values that another scheduler had by default, such as ``clip_sample=True``."""
        return super().extract_init_dict({key: value for key, value in config_dict.items() if key != "_use_default_values"}, **kwargs)

    # ------------------------------------------------------------------------------------------------------------ before a run

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
        """Resolve the plan with that many steps of its grid (those that the grid was made with if None).

        Raises
        ------
        BadInput
            If a grid of given times has another number of steps, or a level is not one of the network's.
        """
        plan = self._resolved(num_inference_steps)
        self.num_inference_steps = len(plan.grid.times(self.process)) - 1
        self._chosen = plan
        self._prepare(program(self.process, plan), device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at that entry of ``timesteps`` (image to image): the plan then begins at its level, with an empty memory.

        Raises
        ------
        BadInput
            If the calls from there on are not those of ``timesteps``, as for a method with more calls at its start.
        """
        labels = self.timesteps[begin_index:]
        if begin_index == 0 or self._prog is None:
            return
        start = float(self.process.time_of(self._levels[begin_index]))
        self._prepare(program(self.process, self._chosen, start), self.timesteps.device)
        if self.timesteps.tolist() != labels.tolist():
            raise BadInput(f"a run from entry {begin_index} makes other calls than the whole run; use a method whose steps are alike")

    def _resolved(self, n: int | None) -> Plan:
        if self._plan is not None:
            plan: Plan = self._plan
            return replace(plan, grid=_sized(plan.grid, n, self.process))
        if self._grid is not None:
            return run(_sized(self._grid, n, self.process), self._method)
        if n is None:
            raise BadInput("num_inference_steps = None needs a grid or a plan that says how many steps")
        spacing = self.config.timestep_spacing
        labels = self.table.labels(n, spacing, self.config.steps_offset if spacing == "leading" else 0)
        return run(sigmas([*self.table.sigma[list(labels)], 0.0]), self._method)

    def _prepare(self, prog: Program, device: Any) -> None:
        first = next(i for i, item in enumerate(prog.items) if not isinstance(item.move, Rows) or item.move.asks)
        self._prog = Program(self.process, prog.moves, prog.items[first:], prog.nfe)
        self._levels = calls(self._prog)
        found = np.array([label_of(self.table, level, self.config.rounding) for level in self._levels])
        self.timesteps = torch.from_numpy(found if found.dtype.kind == "i" else found.astype(np.float32)).to(device)
        counts = {len(item.move.asks) for item in self._prog.items[:-1] if isinstance(item.move, Rows)} - {0}
        self.order = counts.pop() if len(counts) == 1 else 1
        self._stepper, self._handed, self._count = None, None, 0

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:  # noqa: ARG002
        """The sample: it is what the network sees."""
        return sample

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: Any) -> torch.Tensor:
        r""":math:`\sqrt{\bar\alpha}\,x_0 + \sqrt{1 - \bar\alpha}\,n` at labels, whole or not."""
        labels = torch.as_tensor(timesteps).double().reshape(-1)
        sigma = on_host(lambda at: self.table.process.sigma_eff(self.table.time(at)), labels).to(original_samples.device)
        a = (1.0 + sigma * sigma) ** -0.5
        made: torch.Tensor = wide(a, original_samples) * original_samples + wide(a * sigma, original_samples) * noise
        return made

    # -------------------------------------------------------------------------------------------------------------------- a run

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, generator: Any = None, return_dict: bool = True) -> Any:
        """Take the network's answer, and go on to where it is asked next.

        Parameters
        ----------
        model_output : tensor
            The network's answer at ``sample``; channels of a learned variance are dropped.
        timestep : number or tensor
            The entry of ``timesteps`` that it was asked at.
        sample : tensor
            What ``step`` returned last; at first standard normals.  A changed one moves the state, where a step begins and the process has one block.
        generator : Generator or list of Generator, optional
            Source of normals, for all samples or one for each.
        return_dict : bool

        Returns
        -------
        output with ``prev_sample`` and ``pred_original_sample``, or the tuple ``(prev_sample,)``

        Raises
        ------
        BadInput
            Before ``set_timesteps``, after the last call, for calls out of order, and for a sample that was changed inside a step.
        """
        if self._prog is None:
            raise BadInput("call set_timesteps before step")
        if self._count == len(self._levels):
            raise BadInput(f"all {self._count} model calls of this run were made; call set_timesteps to start another")
        if not _elsewhere(timestep) and float(timestep) != float(self.timesteps[self._count]):
            raise BadInput(f"timestep = {float(timestep):g}, but call {self._count} of this run is at {float(self.timesteps[self._count]):g}")
        if isinstance(self._noise, _Generators):
            self._noise.generator = generator
        if self._stepper is None:
            self._stepper = self._begun(self._prog, sample)
        elif sample is not self._handed and not torch.equal(sample, torch.as_tensor(self._handed)):
            self._stepper.move_to(self._scaled(sample))
        y, sigma = self._stepper.asked
        data = self._limited(denoised(self.kind, y, sigma, without_variance(model_output, y.shape[1]).to(y.dtype)))
        self._stepper.answer(data)
        self._count += 1
        self._handed = shown = self._shown(self._stepper).to(sample.dtype)
        if not return_dict:
            return (shown,)
        return _diffusers.schedulers.scheduling_ddpm.DDPMSchedulerOutput(prev_sample=shown, pred_original_sample=data.to(sample.dtype))

    def _scaled(self, sample: torch.Tensor) -> torch.Tensor:
        """``y`` of the sample that the network sees at this call."""
        level = self._levels[self._count]
        made: torch.Tensor = sample.to(torch.promote_types(sample.dtype, torch.float32)) * (1.0 + level * level) ** 0.5
        return made

    def _begun(self, prog: Program, sample: torch.Tensor) -> Stepper:
        """The blocks at the first time given the sample: ``psi y`` plus what of the prior ``y`` does not say."""
        y, k = self._scaled(sample), self.process.k
        kernel: Kernel = self.process.kernel(prog.items[0].t)
        state = [float(psi) * y for psi in kernel.psi]
        if k > 1:
            v = kernel.whitened / np.linalg.norm(kernel.whitened)
            spread = kernel.chol @ (np.eye(k) - np.outer(v, v))
            xi = self._noise.draw([Address(PRIOR, slot=1 + i) for i in range(k)], np.arange(len(y)), tuple(y.shape[1:]), y)
            state = [z + sum(float(c) * n for c, n in zip(row, xi, strict=True)) for z, row in zip(state, spread, strict=True)]
        return Stepper(prog, state, self._noise)

    def _shown(self, stepper: Stepper) -> torch.Tensor:
        """What the network sees next; at the end the data block, in its scale."""
        if stepper.question is not None:
            y, level = stepper.question
        elif stepper.end == 0.0:
            return torch.as_tensor(stepper.state[0])
        else:
            kernel = self.process.kernel(stepper.end)
            y, level = sum(float(c) * z for c, z in zip(kernel.observe, stepper.state, strict=True)), float(kernel.sigma_eff)
        made: torch.Tensor = y * (1.0 + level * level) ** -0.5
        return made

    def _limited(self, data: torch.Tensor) -> Any:
        if self.config.thresholding:
            return thresholded(data, self.config.dynamic_thresholding_ratio, self.config.sample_max_value)
        return clipped(data, self.config.clip_sample_range) if self.config.clip_sample else data


class _Generators:
    """Normals of the generators that the caller of ``step`` gives, as diffusers draws them."""

    generator: Any = None

    def draw(self, addresses: Sequence[Address], ids: Any, shape: tuple[int, ...], like: Any = None) -> list[torch.Tensor]:
        """A tensor (n, *shape) for each address."""
        n = len(ids)
        if isinstance(self.generator, list) and len(self.generator) not in (1, n):
            raise BadInput(f"{len(self.generator)} generators for {n} samples; give one, or one for each sample")
        draw = _diffusers.utils.torch_utils.randn_tensor
        return [draw((n, *shape), generator=self.generator, device=like.device, dtype=like.dtype) for _ in addresses]


def _elsewhere(value: Any) -> bool:
    """Whether looking at a number would wait for a device."""
    return isinstance(value, torch.Tensor) and value.device.type != "cpu"


def _sized(grid: Grid, n: int | None, process: Process) -> Grid:
    """The same kind of grid with ``n`` steps."""
    if n is None:
        return grid
    try:
        record = to_record(grid)
    except BadInput:
        record = {}
    if "n" in record:
        made: Grid = from_record({**record, "n": n})
        return made
    steps = len(grid.times(process)) - 1
    if steps != n:
        raise BadInput(f"num_inference_steps = {n}, but the grid has {steps} given steps; ask for as many, or use a grid such as karras({n})")
    return grid


def _written(value: Any) -> Any:
    if value is None or isinstance(value, Mapping | str):
        return value
    try:
        return to_record(value)
    except BadInput:
        return _OWN


def _read(name: str, value: Any) -> Any:
    if value == _OWN:
        raise BadInput(f"the {name} of this scheduler is {_OWN} code and was not written with it; build it again with use_in(pipeline, {name}=...)")
    return from_record(value) if isinstance(value, Mapping) else value


def use_in(pipeline: Any, **choices: Any) -> Any:
    """Put sdekit's scheduler in the place of a pipeline's, with that one's schedule, prediction type and limits.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        With a scheduler of a discrete schedule (``DDPMPipeline``, Stable Diffusion, DiT, ...).
    **choices
        ``method``, ``grid``, ``plan``, ``process``, ``rounding``, ``seed`` of :class:`SdekitScheduler`; and whatever shall differ from the
        pipeline's configuration.

    Returns
    -------
    pipeline
        The same object.  ``save_pretrained`` writes the choices as records; import ``sdekit.torch.scheduler`` before it is loaded again.

    Raises
    ------
    BadInput
        For a pipeline without such a scheduler, or choices that do not fit.
    """
    before = getattr(pipeline, "scheduler", None)
    if before is None:
        raise BadInput(f"pipeline = {type(pipeline).__name__} has no scheduler")
    table_of(before), kind_of(before)
    told = {key: value for key, value in before.config.items() if key not in ("method", "grid", "plan", "process")}
    pipeline.scheduler = SdekitScheduler.from_config(told, **choices)
    return pipeline
