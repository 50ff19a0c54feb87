"""``digits`` with the plans tuned here, for 43 and 75 calls, three seeds of 250: minutes on one core, so not part of ``make figures``."""

from dataclasses import replace

import numpy as np

import sdekit as sk
from paper_figures.common import Script, one_thread
from paper_figures.restart import digits as short
from sdekit import analysis
from sdekit.law import Gaussian
from sdekit.record import to_record

CLAIMS = short.CLAIMS | {
    "frechet_restart_published_over_ode_75": (0.9, 1.3),
    "frechet_restart_tuned_over_ode_75": (0.9, 1.3),
    "frechet_ode_over_floor_43": (0.8, 1.2),
    "frechet_ode_over_floor_75": (0.8, 1.2),
    "surrogate_tuned_over_ode_43": (0.9, 1.0),
    "surrogate_tuned_over_ode_75": (0.9, 1.0),
}


def tune(denoise, images, nfe, levels, evaluations):
    """What the search finds for the normal law of the held-out images and the network's own error."""
    error = analysis.score_error(denoise, images.held_out, np.geomspace(0.02, 10.0, levels))
    law = Gaussian(images.held_out.mean(0, dtype=float), np.cov(images.held_out.reshape(len(images.held_out), -1).T.astype(float)))
    return analysis.tune_restart(sk.catalogue.edm(), data=law, model=error.surrogate, nfe=nfe, S_noise=1.0, evaluations=evaluations)


def compute(quick):
    denoise, images = sk.torch.load("digits"), sk.torch.digits()
    with one_thread():
        found = {nfe: tune(denoise, images, nfe, *((4, 5) if quick else (10, 240))) for nfe in (43, 75)}
        tuned = {nfe: one.plan for nfe, one in found.items()}
        made = short.measure(denoise, images, tuned, **({"n": 24, "seeds": [0]} if quick else {"n": 250, "seeds": [0, 1, 2]}))
    measured = {f"surrogate_tuned_over_ode_{nfe}": one.error / one.ode for nfe, one in found.items()}
    measured |= {f"surrogate_sde_over_ode_{nfe}": one.sde / one.ode for nfe, one in found.items()}
    settings = made.settings | {"tuned": {str(nfe): to_record(plan) for nfe, plan in tuned.items()}}
    return replace(made, measured=measured | made.measured, settings=settings)


SCRIPT = Script(__file__, compute, short.draw, CLAIMS, panels=3, size=(11.0, 4.0))
main = SCRIPT.main

if __name__ == "__main__":
    main()
