"""Plans: what a sampler does, as data.

A :class:`Plan` is a grid, a method and transforms; ``plan.moves(process)`` resolves it to moves in time.  A :class:`Run` is a run of method
steps with one memory; a :class:`Jump` adds the exact noise of the forward process, going back up; both are affine.  Any other object with
``apply(state, model, normals)`` may stand among them (a corrector, a threshold); exact laws refuse it by name.
"""

from . import published
from ._correct import Correct, Langevin, correct
from ._finish import Finish, dpm_fast, finish
from ._moves import Custom, Jump, Move, Plan, Run, Transform, run
from ._restart import Interval, Restart, restart, restart_nfe
from ._transforms import Ancestral, Churn, Denoise, ancestral, churn, denoise

__all__ = [
    "Ancestral", "Churn", "Correct", "Custom", "Denoise", "Finish", "Interval", "Jump", "Langevin", "Move", "Plan", "Restart", "Run", "Transform",
    "ancestral", "churn", "correct", "denoise", "dpm_fast", "finish", "published", "restart", "restart_nfe", "run",
]  # fmt: skip
