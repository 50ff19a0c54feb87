r"""What a network of another library says, as denoised data; and what its scheduler's configuration means.

A network of a variance-preserving schedule sees :math:`x = y / \sqrt{1 + \sigma^2}`, and with :math:`a = (1 + \sigma^2)^{-1/2}`, :math:`s = \sigma a`

========  =============================  =================================
``kind``  its answer                     denoised data
========  =============================  =================================
eps       :math:`(x - a x_0) / s`        :math:`y - \sigma\,\epsilon`
v         :math:`a\,\epsilon - s\,x_0`   :math:`a x - s v`
x0        :math:`x_0`                    the answer
========  =============================  =================================
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..errors import BadInput, MissingExtra, unknown, whole
from ..tables import Table

try:
    import torch
except ImportError:
    raise MissingExtra("sdekit.torch", "torch") from None

__all__ = ["KINDS", "denoised", "kind_of", "library", "predicted", "table_of", "without_variance"]

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""Prediction types of diffusers."""

_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
_LONGEST = 100_000  # labels of a schedule
_FAINTEST = 2.0**-24  # alpha-bar in the place of 0, as in diffusers' Euler schedulers: a level of 4096


def library() -> Any:
    """The installed diffusers, imported without its warnings about packages that it looks for.

    Raises
    ------
    MissingExtra
        If it is not there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers
    except ImportError:
        raise MissingExtra("diffusers' models and pipelines", "images") from None
    return diffusers


def denoised(kind: str, y: Any, sigma: Any, answer: Any) -> Any:
    """The denoised data out of an answer of that kind, at ``y`` and ``sigma`` (a number, or a tensor that broadcasts)."""
    if kind == "eps":
        return y - sigma * answer
    if kind == "v":
        total = 1.0 + sigma * sigma
        return y / total - sigma / total**0.5 * answer
    return answer


def predicted(kind: str, y: Any, sigma: Any, data: Any) -> Any:
    """The answer of that kind that says ``data``: the inverse of :func:`denoised`."""
    if kind == "x0":
        return data
    eps = (y - data) / sigma
    return eps if kind == "eps" else (eps - sigma * data) / (1.0 + sigma * sigma) ** 0.5


def without_variance(answer: Any, channels: int) -> Any:
    """The answer without the channels of a learned variance.

    Raises
    ------
    BadInput
        Unless it has as many channels as the data, or twice as many.
    """
    found = int(answer.shape[1])
    if found not in (channels, 2 * channels):
        raise BadInput(
            f"the network answers with {found} channels to data of {channels}; it must be {channels}, or {2 * channels} with a learned variance"
        )
    return answer[:, :channels]


def _config(scheduler: Any) -> Mapping[str, Any]:
    config = getattr(scheduler, "config", scheduler)
    if not isinstance(config, Mapping):
        raise BadInput(f"scheduler = {scheduler!r} must be a scheduler of diffusers or the mapping in its scheduler_config.json")
    return config


def kind_of(scheduler: Any) -> str:
    """What the network of a scheduler predicts: "eps", "v" or "x0".

    Raises
    ------
    BadInput
        For another ``prediction_type``.
    """
    name = _config(scheduler).get("prediction_type", "epsilon")
    if name not in KINDS:
        hint = "; a velocity of flow matching is wrapped by sdekit.torch.adapters.Flow" if "flow" in str(name) else ""
        raise BadInput(f"{unknown('prediction_type', name, KINDS)}{hint}")
    return KINDS[name]


def table_of(scheduler: Any) -> Table:
    r"""The table of :math:`\bar\alpha` that a scheduler of diffusers, or its configuration, was trained on.

    Its digits are those of diffusers, which computes it in float32.  Where betas were rescaled to no signal at the end, the last entry, 0, is
    :math:`2^{-24}`, as in diffusers' Euler schedulers, or half of the one before where that is less (theirs then rises again).

    Raises
    ------
    BadInput
        For a configuration without betas (flow matching), or one that diffusers refuses.
    """
    config = _config(scheduler)
    known = {key: config[key] for key in _BETAS if config.get(key) is not None}
    if not {"beta_start", "beta_end", "beta_schedule", "trained_betas"} & set(known):
        rule = "a network of flow matching is wrapped by sdekit.torch.adapters.Flow"
        raise BadInput(f"the configuration of {config.get('_class_name', 'the scheduler')} names no betas (keys: {', '.join(_BETAS[:5])}); {rule}")
    count = whole("num_train_timesteps", known.get("num_train_timesteps", 1000), 2)
    trained = known.get("trained_betas")
    if count > _LONGEST or (hasattr(trained, "__len__") and len(trained) > _LONGEST):  # type: ignore[arg-type]
        raise BadInput(f"num_train_timesteps = {count} is more than {_LONGEST}: the configuration is damaged")
    try:
        abar = library().DDPMScheduler(**known).alphas_cumprod.double()
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise BadInput(f"diffusers refuses the schedule {known}: {' '.join(str(error).split())}") from None
    if float(abar[-1]) == 0.0:
        abar = torch.cat([abar[:-1], (0.5 * abar[-2:-1]).clamp(max=_FAINTEST)])
    return Table(tuple(abar.tolist()))
