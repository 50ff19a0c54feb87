"""Images to PNG files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import BadInput, MissingExtra
from .files import write_bytes

__all__ = ["png", "tile", "write_grid"]


def png(picture: ArrayLike, scale: int = 1) -> bytes:
    """A picture (H, W) or (H, W, 3) with values in [0, 1] as a PNG file, each pixel ``scale`` times as large; values are rounded, not cut."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("writing pictures", "images") from None
    bytes_ = np.rint(255.0 * np.clip(np.asarray(picture, float), 0.0, 1.0)).astype(np.uint8)
    large = np.kron(bytes_, np.ones((scale, scale) if bytes_.ndim == 2 else (scale, scale, 1), np.uint8))
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def tile(samples: ArrayLike, columns: int = 8, range: tuple[float, float] = (-1.0, 1.0)) -> Any:  # noqa: A002
    """Images (n, channels, height, width) side by side with one pixel between: an array (H, W) or (H, W, 3) in [0, 1]."""
    data = np.asarray(samples, float)
    if data.ndim != 4 or data.shape[1] not in {1, 3}:
        raise BadInput(f"images have shape {data.shape}; they must be (n, 1 or 3, height, width)")
    n, channels, height, width = data.shape
    rows = -(-n // columns)
    sheet = np.ones((rows * columns, channels, height + 1, width + 1))
    sheet[:n, :, :height, :width] = np.clip((data - range[0]) / (range[1] - range[0]), 0.0, 1.0)
    picture = sheet.reshape(rows, columns, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    picture = picture.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    return picture[..., 0] if channels == 1 else picture


def write_grid(path: Path, samples: ArrayLike, range: Any = (-1.0, 1.0), columns: int = 8) -> Path:  # noqa: A002
    """Write images (n, channels, height, width) side by side; returns the path."""
    picture = tile(samples, columns, (float(range[0]), float(range[1])))
    write_bytes(path, png(picture, max(1, 256 // max(picture.shape[:2]))))
    return path
