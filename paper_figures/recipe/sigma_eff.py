"""sigma_eff over t for several Gamma (A Complete Recipe / PSLD): Gamma sets the smallest noise level.

With Gamma = 0 (CLD) the level falls like t^(3/2), with Gamma > 0 like sqrt(Gamma beta t): at t = 1e-3 that is 7e-4 (wasteful), 9e-3 for the
paper's Gamma = 0.01 (like VP), 4.5e-2 for 0.25 (which loses fine detail).

    python paper_figures/recipe/sigma_eff.py            # data, then figure
    python paper_figures/recipe/sigma_eff.py --draw     # figure from the committed data
"""

import argparse
import json
from pathlib import Path

import numpy as np

import sdekit as sk

HERE = Path(__file__).parent
GAMMAS = (0.0, 0.005, 0.01, 0.02, 0.25)


def compute() -> None:
    """The levels, on 121 times from 1e-5 to 1."""
    t = np.geomspace(1e-5, 1.0, 121)
    levels = {f"Gamma = {gamma:g}": sk.catalogue.psld(Gamma=gamma).sigma_eff(t) for gamma in GAMMAS}
    levels["VP"] = sk.catalogue.vp().sigma_eff(t)
    (HERE / "data").mkdir(exist_ok=True)
    np.savez(HERE / "data" / "sigma_eff.npz", t=t, names=np.array(list(levels)), levels=np.array(list(levels.values())))
    processes = {"psld": {"M": 0.25, "nu": "Gamma + 4", "beta": 8, "T": 1, "initial": {"m": "0.04 M"}}, "vp": {"beta": [0.1, 20]}}
    versions = {"sdekit": sk.__version__, "numpy": np.__version__}
    record = {"command": "python paper_figures/recipe/sigma_eff.py", "seeds": [], "versions": versions, "processes": processes}
    (HERE / "data" / "sigma_eff.json").write_text(json.dumps(record, indent=1) + "\n")


def draw() -> None:
    """The figure, from the data alone."""
    from matplotlib.figure import Figure

    with np.load(HERE / "data" / "sigma_eff.npz", allow_pickle=False) as data:
        t, names, levels = data["t"], data["names"], data["levels"]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.add_subplot()
    for name, level in zip(names, levels, strict=True):
        ax.loglog(t, level, "k--" if name == "VP" else "-", label=str(name).replace("Gamma", r"$\Gamma$"))
    ax.axvline(1e-3, color="grey", linewidth=0.8)
    ax.annotate(r"$t_\epsilon = 10^{-3}$", (1.1e-3, 30), color="grey")
    ax.set(
        xlabel="t",
        ylabel=r"$\sigma_{\mathrm{eff}}(t)$",
        title=r"PSLD: $\Gamma$ sets the smallest noise level ($M^{-1} = 4$, $\nu = \Gamma + 4$, $\beta = 8$)",
    )
    ax.legend()
    for suffix in ("pdf", "png"):
        figure.savefig(HERE / f"sigma_eff.{suffix}", dpi=150, metadata={"CreationDate": None} if suffix == "pdf" else {"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="draw from the committed data only")
    if not parser.parse_args().draw:
        compute()
    draw()
