"""``toy`` with twenty seeds of 400 points: minutes on one core, so not part of ``make figures``."""

from paper_figures.common import Script
from paper_figures.restart import toy as short

CLAIMS = {
    "contracted_restart_minus_ode_perturbed": (-0.3, -0.05),
    "contracted_restart_minus_ode_network": (-0.1, -0.01),
    "contracted_restart_minus_sde_perturbed": (-0.12, 0.03),
    "contracted_restart_minus_sde_network": (-0.07, 0.05),
    "frontier_restart_minus_sde_perturbed": (-0.04, 0.06),
    "frontier_restart_minus_sde_network": (-0.06, 0.04),
    "total_restart_minus_sde_perturbed": (-0.04, 0.09),
    "total_restart_minus_sde_network": (-0.05, 0.05),
}


def compute(quick):
    return short.compute(True) if quick else short.measured_with(list(range(20)), 400, False)


SCRIPT = Script(__file__, compute, short.draw, CLAIMS, panels=4, size=(15.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
