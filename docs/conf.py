"""Sphinx's configuration: `make docs` builds the manual with warnings as errors."""

import re
import shutil
from pathlib import Path

import sdekit

HERE = Path(__file__).parent

project = "sdekit"
author = "The sdekit authors"
project_copyright = "the sdekit authors, MIT licence"
version = release = sdekit.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "tables.py"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make docs` runs the notebooks first; the quick build shows them as they are
nb_execution_timeout = 300

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "none"  # numpydoc sections say the types
autodoc_inherit_docstrings = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # short names such as k belong to several classes

html_theme = "furo"
html_title = "sdekit"
templates_path = []


def bring_notebooks(_):
    """The notebooks, executed ones first where there are any, and the figures, into the manual's tree."""
    there = HERE / "notebooks"
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir()
    for path in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        shutil.copy(path, there / path.name)


def escape(_app, _what, _name, _object, _options, lines):
    """Shapes such as (n, *shape) are no emphasis."""
    lines[:] = [re.sub(r"(?<=[(, ])\*(?=\w[\w.]*\s*[,)\]])", r"\\*", line) for line in lines]


def setup(app):
    """Register both."""
    app.connect("builder-inited", bring_notebooks)
    app.connect("autodoc-process-docstring", escape, priority=100)
