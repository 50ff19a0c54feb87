r"""Processes mode by mode: one ``k x k`` block for each mode of a fixed orthonormal basis.

The data are written as :math:`x_0 = U c`; mode ``j`` of ``c`` follows a linear process of its own, all in the same time, with kernel
:math:`\psi_j, S_j` and level :math:`\sigma_j(t) = (\psi_j^T S_j^{-1} \psi_j)^{-1/2}`.  So all that the state says of the data is in

.. math:: y = x_0 + U\,\mathrm{diag}(\sigma_j)\,n ,

and the model that is needed is ``denoise(y, sigmas)``: the mean of the data given ``y``, whose noise has the level ``sigmas[j]`` in mode ``j``.
Methods, plans and exact laws stay as they are: their rows get one coefficient for each mode.
"""

from .bases import Basis, dct, eigen, pixels
from .laws import Denoiser, Spectral
from .process import Modes
from .shipped import Fading, blurring, per_dimension, whitened

__all__ = ["Basis", "Denoiser", "Fading", "Modes", "Spectral", "blurring", "dct", "eigen", "per_dimension", "pixels", "whitened"]
