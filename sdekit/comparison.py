"""Two processes side by side: whether they are the same mathematics, and where moments, levels and stationary laws differ."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import BadInput

if TYPE_CHECKING:
    from .process import Process

Array = NDArray[np.float64]

__all__ = ["Comparison", "compare"]

_SHARES = (1e-3, 1e-2, 0.1, 0.3, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What :meth:`sdekit.Process.compare` found.

    Attributes
    ----------
    names : (str, str)
    same : bool
        Whether drift, noise, start, clock and end are equal: the same mathematics, whatever the names.
    shares : array (n,)
        Times as shares of each process's own ``T``.
    columns : dict of str to array (2, n)
        ``mean``, ``std`` (of the data block, given the data), ``snr`` and ``sigma_eff`` of both.
    stationary : (array or None, array or None)
        Covariances of the stationary laws; None where there is none.
    verdict : str
        One line.
    """

    names: tuple[str, str]
    same: bool
    shares: Array
    columns: dict[str, Array]
    stationary: tuple[Array | None, Array | None]
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        laws = [None if law is None else law.tolist() for law in self.stationary]
        table = {name: values.tolist() for name, values in self.columns.items()}
        return {"names": list(self.names), "same": self.same, "verdict": self.verdict, "shares": self.shares.tolist(), **table, "stationary": laws}

    def _rows(self) -> list[list[str]]:
        head = ["t / T", *(f"{column} {name}" for column in self.columns for name in self.names)]
        rows = [[f"{share:g}", *(f"{values[i, j]:.6g}" for values in self.columns.values() for i in (0, 1))] for j, share in enumerate(self.shares)]
        return [head, *rows]

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        table = "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        laws = "\n".join(
            f"stationary covariance of {name}: {'none' if law is None else np.round(law, 10).tolist()}"
            for name, law in zip(self.names, self.stationary, strict=True)
        )
        return f"{self.verdict}\n{table}\n{laws}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><caption>{escape(self.verdict)}</caption><tr>{top}</tr>{body}</table>"


def compare(a: Process, b: Process) -> Comparison:
    """Moments, SNR, levels and stationary laws of two processes at the same shares of their ends.

    Raises
    ------
    BadInput
        If ``b`` is not a process.
    """
    if not hasattr(b, "key"):
        raise BadInput(f"compare takes a Process, not {type(b).__name__}")
    shares = np.array(_SHARES)
    kernels = [p.kernel(shares * p.T) for p in (a, b)]
    columns = {
        "mean": np.array([k.psi[:, 0] for k in kernels]),
        "std": np.array([np.sqrt(k.cov[:, 0, 0]) for k in kernels]),
        "snr": np.array([k.snr for k in kernels]),
        "sigma_eff": np.array([p.sigma_eff(shares * p.T) for p in (a, b)]),
    }
    laws = tuple(_stationary(p) for p in (a, b))
    same = a.key == b.key
    return Comparison((a.name, b.name), same, shares, columns, (laws[0], laws[1]), _verdict(a, b, same, columns))


def _stationary(process: Process) -> Array | None:
    try:
        return process.stationary
    except BadInput:
        return None


def _verdict(a: Process, b: Process, same: bool, columns: dict[str, Array]) -> str:
    if same:
        return f"{a.name} and {b.name} are the same mathematics" + ("" if a.name == b.name else " under two names")
    name = f"two processes are called {a.name}, and are not the same mathematics" if a.name == b.name else f"{a.name} and {b.name} differ"
    parts = [part for part in ("F", "G", "S0") if getattr(a, part).shape != getattr(b, part).shape or np.any(getattr(a, part) != getattr(b, part))]
    parts += [part for part in ("clock", "T") if getattr(a, part) != getattr(b, part)]
    one, two = columns["sigma_eff"]
    levels = "; their levels agree at the same share of time" if np.allclose(one, two, rtol=1e-9) else ""
    return f"{name}: {', '.join(parts)} are not equal{levels}"
