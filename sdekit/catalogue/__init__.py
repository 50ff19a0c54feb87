"""The shipped processes, each a TOML file in the users' own format.

>>> import sdekit as sk
>>> sk.catalogue.names()
['anisotropic', 'cld', 'cosine', 'edm', 'flow', 'fourth_order', 'psld', 'riemannian', 'sghmc', 'sgnht', 'subvp', 'third_order', 've', 'vp']
>>> sk.catalogue.psld(Gamma=0.02).k
2

Langevin chains come in every order: :func:`chain`.

>>> sk.catalogue.chain(5).k
5
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from ..errors import unknown
from ..moving import Moving
from ..process import Process
from ..recipe import Recipe
from ..spec import loads
from .chains import chain, chain_recipe

__all__ = ["chain", "chain_recipe", "names", "recipe"]


@cache
def _files() -> dict[str, str]:
    folder = resources.files(__package__)
    return {entry.name.removesuffix(".toml"): entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".toml")}


def names() -> list[str]:
    """The names of the shipped processes."""
    return sorted(_files())


@cache
def recipe(name: str) -> Recipe | Moving:
    """The recipe called ``name``; for a process without a fixed law its ``F`` and ``G``.

    Raises
    ------
    BadInput
        For a name that is not in :func:`names`; the nearest is suggested.
    """
    if name not in _files():
        raise unknown("process", name, names())
    return loads(_files()[name], f"{name}.toml")


def __getattr__(name: str) -> Callable[..., Process]:
    """``catalogue.psld(Gamma=0.01)`` is ``catalogue.recipe("psld").process(Gamma=0.01)``."""
    if name.startswith("_") or name not in _files():
        raise AttributeError(f"module 'sdekit.catalogue' has no attribute {name!r}; processes: {', '.join(names())}")

    def make(**values: Any) -> Process:
        return recipe(name).process(**values)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"The process {name!r}: parameters {', '.join(f'{k} = {v}' for k, v in recipe(name).parameters)}.  See Recipe.process."
    return make


def __dir__() -> list[str]:
    return [*__all__, *names()]
