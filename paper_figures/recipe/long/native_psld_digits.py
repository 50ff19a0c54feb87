"""``native_psld_digits`` with three seeds and 300 steps of training each: minutes on one core, so not part of ``make figures``."""

from paper_figures.common import Script
from paper_figures.recipe import native_psld_digits as short

CLAIMS = {
    "identity": (0.0, 1e-13),
    "error_native_eps_over_denoiser": (1.0, 1.3),
    "error_native_edm_over_denoiser": (0.9, 1.1),
    "known_noise_of_native_edm": (0.0, 1e-20),
    "least_frechet_native_eps_em": (10.0, float("inf")),
    "frechet_native_edm_sscs": (0.5, 1.7),
    "frechet_denoiser_shipped_sscs": (0.5, 1.7),
}


def compute(quick):
    return short.compute(True) if quick else short.measure([0, 1, 2], short.FULL | {"steps": 300})


SCRIPT = Script(__file__, compute, short.draw, CLAIMS, panels=2, size=(9.6, 4.2))
main = SCRIPT.main

if __name__ == "__main__":
    main()
