"""Processes, grids, methods and plans as JSON data, and back: exact numbers, a closed list of kinds, nothing imported or evaluated."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from . import clocks, grids, methods, plans
from .control import Control, Controller
from .errors import BadInput, finite, unknown, whole
from .methods import Method
from .plans import Jump, Plan, Run
from .process import Process

__all__ = ["FORMAT", "from_record", "to_record"]

FORMAT = "sdekit.record/1"
_ENTRIES = 100_000  # most entries of a list in a record


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{key} = {_short(value)} must be a number")
    try:
        return finite(key, value)
    except OverflowError:
        raise BadInput(f"{key} is too large a number") from None


def _optional(key: str, value: Any) -> float | None:
    return None if value is None else _number(key, value)


def _whole(key: str, value: Any) -> int:
    made = whole(key, value, 0)
    if made > _ENTRIES:
        raise BadInput(f"{key} = {_short(value)} is more than {_ENTRIES}")
    return made


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{key} = {_short(value)} must be true or false")
    return value


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{key} = {_short(value)} must be text")
    return value


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > _ENTRIES:
        raise BadInput(f"{key} = {_short(value)} must be a list of at most {_ENTRIES} entries")
    return value


def _numbers(key: str, value: Any) -> list[float]:
    return [_number(f"{key}[{i}]", entry) for i, entry in enumerate(_list(key, value))]


def _matrix(key: str, value: Any) -> list[list[float]]:
    rows = [_numbers(f"{key}[{i}]", row) for i, row in enumerate(_list(key, value))]
    if not 0 < len(rows) <= 64 or len({len(row) for row in rows}) != 1 or not 0 < len(rows[0]) <= 64:
        raise BadInput(f"{key} must be a matrix of at most 64 x 64 numbers")
    return rows


def _words(key: str, value: Any) -> list[str]:
    return [_text(f"{key}[{i}]", entry) for i, entry in enumerate(_list(key, value))]


def _intervals(key: str, value: Any) -> list[tuple[int, int, float, float]]:
    made = []
    for i, entry in enumerate(_list(key, value)):
        if len(_list(f"{key}[{i}]", entry)) != 4:
            raise BadInput(f"{key}[{i}] must be [N_restart, K, t_min, t_max]")
        N, K, low, high = entry
        at = f"{key}[{i}]"
        made.append((_whole(at, N), _whole(at, K), _number(at, low), _number(at, high)))
    return made


def _methods(key: str, value: Any) -> list[Method]:
    return [_read(f"{key}[{i}]", entry, ("method",)) for i, entry in enumerate(_list(key, value))]


def _expression_clock(rate: str, T: float) -> clocks.Expression:
    from .spec import load_rate

    return load_rate(rate, T)


Reader = Callable[[str, Any], Any]
_ANNOTATED: dict[str, Reader] = {"float": _number, "Loudness": _number, "int": _whole, "str": _text, "bool": _flag, "float | None": _optional}
_LEVELS: dict[str, Reader] = {"n": _whole, "sigma_min": _number, "sigma_max": _number, "zero": _flag}
_GRIDS: dict[str, tuple[Callable[..., grids.Grid], dict[str, Reader]]] = {
    "karras": (grids.karras, {**_LEVELS, "rho": _number}),
    "logsnr": (grids.logsnr, _LEVELS),
    "polyexponential": (grids.polyexponential, {**_LEVELS, "rho": _number}),
    "arctan": (grids.arctan, {**_LEVELS, "scale": _number}),
    "beta": (grids.beta, {**_LEVELS, "alpha": _number, "beta": _number}),
    "vp": (grids.vp, {**_LEVELS, "beta_min": _number, "beta_max": _number}),
    "bent": (grids.bent, {**_LEVELS, "bends": _numbers}),
    "uniform": (grids.uniform, {"n": _whole, "end": _optional}),
    "quadratic": (grids.quadratic, {"n": _whole, "end": _optional}),
    "cosine": (grids.cosine, {"n": _whole, "end": _optional}),
    "ays": (grids.ays, {"n": _whole, "table": _text, "zero": _flag}),
    "times": (grids.times, {"values": _numbers}),
    "sigmas": (grids.sigmas, {"values": _numbers}),
}
_CLOCKS: dict[str, tuple[Callable[..., clocks.Clock], dict[str, Reader]]] = {
    "linear": (clocks.linear, {"beta_min": _number, "beta_max": _number, "T": _number}),
    "exponential": (clocks.exponential, {"beta_min": _number, "beta_max": _number, "T": _number}),
    "cosine": (clocks.cosine, {"s": _number, "T": _number}),
    "expression": (_expression_clock, {"rate": _text, "T": _number}),
}
_TRANSFORMS: dict[str, dict[str, Reader]] = {
    "denoise": {},
    "finish": {"methods": _methods},
    "ancestral": {"eta": _number},
    "correct": {"snr": _number, "steps": _whole},
    "churn": {"S_churn": _number, "S_min": _number, "S_max": _optional, "S_noise": _number},
    "restart": {"intervals": _intervals, "snap": _text, "S_noise": _number},
    "restart_churn": {"churn": _number, "S_min": _number, "S_max": _optional, "S_noise": _number},
}


def to_record(obj: Process | grids.Grid | Method | Plan | Run | Jump | Control) -> dict[str, Any]:
    """``obj`` as data for JSON, every number exact.

    Parameters
    ----------
    obj : Process, Grid, Method, Plan, Run, Jump or Control
        A plan with its transforms; a process with its recipe, as TOML text, where the format of specs holds it.

    Raises
    ------
    BadInput
        For what is made of the user's own code: methods, grids, clocks, transforms, custom moves.
    """
    return {"format": FORMAT, **_written(obj)}


def from_record(record: Mapping[str, Any]) -> Any:
    """What :func:`to_record` wrote; ``from_record(json.loads(json.dumps(to_record(x)))) == x``.

    Raises
    ------
    BadInput
        For an unknown kind, a missing or extra key, a value of the wrong type or range.  Nothing is imported or evaluated.
    """
    if not isinstance(record, Mapping) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, Mapping) else type(record).__name__
        raise BadInput(f"the record has format {_short(found)}; this version reads {FORMAT!r}")
    return _read("record", {key: value for key, value in record.items() if key != "format"}, tuple(_KINDS))


def _written(obj: Any) -> dict[str, Any]:
    if isinstance(obj, Process):
        return {
            "kind": "process", "name": obj.name, "F": obj.F.tolist(), "G": obj.G.tolist(), "S0": obj.S0.tolist(), "T": float(obj.T),
            "clock": _clock(obj.clock), "blocks": list(obj.blocks), "recipe": _recipe(obj),
        }  # fmt: skip
    if isinstance(obj, Method):
        return _method(obj)
    if isinstance(obj, Control):
        return _control(obj)
    if isinstance(obj, Plan):
        transforms = [_transform(transform) for transform in obj.transforms]
        made: dict[str, Any] = {"kind": "plan", "grid": _written(obj.grid), "method": _method(obj.method), "transforms": transforms}
        return made if obj.control is None else {**made, "control": _control(obj.control)}
    if isinstance(obj, Run):
        made = {"kind": "run", "method": _method(obj.method), "times": [float(t) for t in obj.times], "leg": obj.leg, "first": obj.first}
        return made if obj.control is None else {**made, "control": _control(obj.control)}
    if isinstance(obj, Jump):
        return {"kind": "jump", "s": float(obj.s), "t": float(obj.t), "scale": float(obj.scale), "leg": obj.leg, "step": obj.step}
    if isinstance(obj, plans.Denoise | plans.Finish | plans.Ancestral | plans.Churn | plans.Correct | plans.Restart):
        return _transform(obj)
    return _grid(obj)


def _clock(clock: Any) -> dict[str, Any]:
    if isinstance(clock, clocks.Expression):
        from .writing import dump_rate

        return {"kind": "clock", "name": "expression", "rate": dump_rate(clock), "T": float(clock.T)}
    for name, kind in (("linear", clocks.Linear), ("exponential", clocks.Exponential), ("cosine", clocks.Cosine)):
        if type(clock) is kind:
            return {"kind": "clock", "name": name, **{f.name: float(getattr(clock, f.name)) for f in fields(kind)}}
    raise BadInput(f"clock {_short(clock)} cannot be written: it is none of those in sdekit.clocks")


def _recipe(process: Process) -> str | None:
    if process.recipe is None:
        return None
    from .writing import dumps

    try:
        return dumps(process.recipe)
    except BadInput:  # the numbers are the process; where it comes from is beside
        return None


def _method(method: Method) -> dict[str, Any]:
    """The constructor and its arguments, if they give an equal method."""
    name, arguments = method.origin or ("", ())
    if name not in methods.__all__ or any(callable(v) for _, v in arguments) or getattr(methods, name)(**dict(arguments)) != method:
        raise BadInput(f"method {_short(method.name)} cannot be written: it is the user's own, not one of sdekit.methods")
    readers = _parameters(name)
    return {"kind": "method", "name": name, **{k: float(v) if readers[k] is _number else v for k, v in arguments}}


def _parameters(name: str) -> dict[str, Reader]:
    """The parameters of a method's constructor, read as they are annotated."""
    return {key: _ANNOTATED[parameter.annotation] for key, parameter in inspect.signature(getattr(methods, name)).parameters.items()}


def _read_method(key: str, record: Any) -> Method:
    name = record.get("name")
    known = [own for own in methods.__all__ if own.islower()]
    if not isinstance(name, str) or name not in known:
        raise BadInput(f"{key}.name: {unknown('name', _short(name), known)}")
    made: Method = getattr(methods, name)(**_entries(key, {k: v for k, v in record.items() if k != "name"}, _parameters(name)))
    return made


def _control(control: Control) -> dict[str, Any]:
    """Every field; an infinity as null."""

    def finite_or_none(value: Any) -> Any:
        return None if isinstance(value, float) and math.isinf(value) else value

    own = {field.name: finite_or_none(getattr(control, field.name)) for field in fields(Control)}
    law = {field.name: finite_or_none(getattr(control.controller, field.name)) for field in fields(Controller)}
    law |= {"gains": list(control.controller.gains), "steps": list(control.controller.steps)}
    return {**own, "kind": "control", "method": _method(control.method), "controller": law}


def _read_control(key: str, record: Any) -> Control:
    law = record.get("controller")
    readers = {"gains": _numbers, "target": _number, "steps": _numbers, "least": _number, "most": _optional}
    found = _entries(f"{key}.controller", law if isinstance(law, Mapping) else {}, readers)
    infinite = {"most": math.inf} if found["most"] is None else {}
    controller = Controller(**{**found, **infinite, "gains": tuple(found["gains"]), "steps": tuple(found["steps"])})
    kinds: dict[str, Reader] = {"float": _number, "int": _whole, "str": _text, "bool": _flag}
    own = {field.name: kinds[str(field.type)] for field in fields(Control) if str(field.type) in kinds}
    rest = {name: value for name, value in record.items() if name != "controller"}
    made = _entries(key, rest, {**own, "method": _of("method"), "seconds": _optional})
    return Control(**{**made, "controller": controller, "seconds": math.inf if made["seconds"] is None else made["seconds"]})


def _grid(grid: Any) -> dict[str, Any]:
    given = vars(grid) if type(grid).__module__ == grids.__name__ else {}
    given = {**given, **dict(given.get("shape", ()))}
    for name, (make, readers) in _GRIDS.items():
        if set(readers) <= set(given):
            arguments = {key: list(given[key]) if readers[key] is _numbers else given[key] for key in readers}
            if make(**arguments) == grid:
                return {"kind": "grid", "name": name, **arguments}
    raise BadInput(f"{_short(grid)} cannot be written: it is neither a Process, Plan, Method, Run, Jump nor one of the grids {', '.join(_GRIDS)}")


def _transform(transform: Any) -> dict[str, Any]:
    match transform:
        case plans.Denoise():
            return {"kind": "transform", "name": "denoise"}
        case plans.Finish():
            return {"kind": "transform", "name": "finish", "methods": [_method(method) for method in transform.methods]}
        case plans.Ancestral(eta=eta):
            return {"kind": "transform", "name": "ancestral", "eta": eta}
        case plans.Correct(snr=snr, steps=steps):
            return {"kind": "transform", "name": "correct", "snr": snr, "steps": steps}
        case plans.Churn():
            name, amount = ("restart_churn", "churn") if transform.restart else ("churn", "S_churn")
            high = None if math.isinf(transform.high) else transform.high
            return {"kind": "transform", "name": name, amount: transform.amount, "S_min": transform.low, "S_max": high,
                    "S_noise": transform.scale}  # fmt: skip
        case plans.Restart():
            intervals = [list(entry) for entry in transform.intervals]
            return {"kind": "transform", "name": "restart", "intervals": intervals, "snap": transform.snap, "S_noise": transform.scale}
    raise BadInput(f"transform {_short(transform)} cannot be written: it is the user's own; known: {', '.join(_TRANSFORMS)}")


def _read(key: str, record: Any, kinds: tuple[str, ...]) -> Any:
    if not isinstance(record, Mapping):
        raise BadInput(f"{key} = {_short(record)} must be a table")
    kind = record.get("kind")
    if kind not in kinds:
        raise BadInput(f"{key}.kind = {_short(kind)} must be {' or '.join(kinds)}")
    rest = {name: value for name, value in record.items() if name != "kind"}
    try:
        return _KINDS[kind](key, rest)
    except (OverflowError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise BadInput(f"{key}: numbers out of range ({' '.join(str(error).split())})") from None


def _entries(key: str, record: Mapping[str, Any], readers: Mapping[str, Reader]) -> dict[str, Any]:
    for name in record:
        if name not in readers:
            raise BadInput(f"{key}: {unknown('key', name, readers)}")
    for name in readers:
        if name not in record:
            raise BadInput(f"{key}: key {name!r} is missing")
    return {name: read(f"{key}.{name}", record[name]) for name, read in readers.items()}


def _chosen(table: Mapping[str, tuple[Callable[..., Any], dict[str, Reader]]]) -> Reader:
    def read(key: str, record: Any) -> Any:
        name = record.get("name")
        if not isinstance(name, str) or name not in table:
            raise BadInput(f"{key}.name: {unknown('name', _short(name), table)}")
        make, readers = table[name]
        return make(**_entries(key, {k: v for k, v in record.items() if k != "name"}, readers))

    return read


def _of(*kinds: str) -> Reader:
    return lambda key, record: _read(key, record, kinds)


def _read_process(key: str, record: Any) -> Process:
    found = _entries(key, record, {"name": _text, "F": _matrix, "G": _matrix, "S0": _matrix, "T": _number, "clock": _of("clock"),
                                   "blocks": _words, "recipe": lambda k, v: None if v is None else _text(k, v)})  # fmt: skip
    text = found.pop("recipe")
    if text is not None:
        from .spec import loads

        text = loads(text, f"{key}.recipe")
    return Process(**found, recipe=text)


def _read_plan(key: str, record: Any) -> Plan:
    found = _entries(key, record, {"grid": _of("grid"), "method": _of("method"), "transforms": _list, **_steered(record)})
    plan = Plan(found["grid"], found["method"], control=found.get("control"))
    for i, entry in enumerate(found["transforms"]):
        plan = _read(f"{key}.transforms[{i}]", entry, ("transform",))(plan)
    return plan


def _read_transform(key: str, record: Any) -> Callable[[Plan], Plan]:
    """The public function that adds the transform, so that its checks hold here too."""
    name = record.get("name")
    if not isinstance(name, str) or name not in _TRANSFORMS:
        raise BadInput(f"{key}.name: {unknown('transform', _short(name), _TRANSFORMS)}")
    found = _entries(key, {k: v for k, v in record.items() if k != "name"}, _TRANSFORMS[name])
    if name == "denoise":
        return lambda plan: plan.then(plans.denoise())
    if name == "finish":
        return lambda plan: plan.then(plans.finish(*found["methods"]))
    if name == "ancestral":
        return lambda plan: plans.ancestral(plan, **found)
    if name == "correct":
        return lambda plan: plans.correct(plan, **found)
    if "S_max" in found:
        found["S_max"] = math.inf if found["S_max"] is None else found["S_max"]
    if name == "churn":
        return lambda plan: plans.churn(plan, **found)
    made = plans.restart(grids.karras(), **{"intervals": [], **found})
    return lambda plan: plan.then(made.transforms[0] if name == "restart" else made.transforms[-1])


def _steered(record: Mapping[str, Any]) -> dict[str, Reader]:
    return {"control": _of("control")} if "control" in record else {}


def _read_run(key: str, record: Any) -> Run:
    found = _entries(key, record, {"method": _of("method"), "times": _numbers, "leg": _whole, "first": _whole, **_steered(record)})
    return Run(**{**found, "times": tuple(grids.times(found["times"]).values)})  # type: ignore[attr-defined]


def _read_jump(key: str, record: Any) -> Jump:
    return Jump(**_entries(key, record, {"s": _number, "t": _number, "scale": _number, "leg": _whole, "step": _whole}))


_KINDS: dict[str, Reader] = {
    "process": _read_process, "plan": _read_plan, "method": _read_method, "grid": _chosen(_GRIDS), "run": _read_run, "jump": _read_jump,
    "clock": _chosen(_CLOCKS), "transform": _read_transform, "control": _read_control,
}  # fmt: skip


def _short(value: Any) -> str:
    try:
        text = " ".join(ascii(value).split())
    except (ValueError, RecursionError):
        return f"a large {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
