"""``import sdekit`` loads NumPy only, and the analysis package has one name."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ["sympy", "scipy", "torch", "matplotlib", "pydantic", "typer", "tqdm", "array_api_compat", "diffusers", "sklearn"]


def python(code, **more):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **more)


def test_import_loads_numpy_only():
    done = python(f"import sys, json, sdekit; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))")
    assert json.loads(done.stdout) == []


def test_numeric_rooms_load_no_sympy():
    code = (
        "import sys, numpy as np, sdekit as sk\n"
        "p = sk.Process([[-0.5]], [[1.0]], T=8.0)\n"
        "law = sk.law.Gaussian(0.0, 0.25)\n"
        "sk.sample(p, law.denoiser(), method=sk.methods.heun(), grid=sk.grids.karras(5), n=3)\n"
        "print('sympy' in sys.modules, 'scipy' in sys.modules, 'torch' in sys.modules)"
    )
    assert python(code).stdout.split() == ["False", "False", "False"]


def test_import_costs_little_more_than_numpy():
    code = (
        "import time, sys\n"
        "import numpy\n"
        "start = time.perf_counter()\n"
        "import sdekit\n"
        "print(time.perf_counter() - start)"
    )  # fmt: skip
    assert min(float(python(code).stdout) for _ in range(5)) < 0.25


def test_every_public_name_resolves():
    import sdekit as sk
    from sdekit import analysis

    for module in (sk, analysis):
        for name in module.__all__:
            assert getattr(module, name) is not None
        assert set(module.__all__) <= set(dir(module))


def test_unknown_names_are_attribute_errors():
    done = python("import sdekit; sdekit.samples")
    assert "module 'sdekit' has no attribute 'samples'" in done.stderr


def test_analysis_cannot_be_imported_under_a_second_name():
    done = python("import analysis", cwd=ROOT)
    assert done.returncode == 1
    assert "sdekit.analysis" in done.stderr
    assert (ROOT / "sdekit" / "analysis").is_symlink()
    assert (ROOT / "sdekit" / "analysis").readlink() == Path("../analysis")
