"""The wheel holds every module once, the data files, and nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "sdekit"
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        path = ROOT / name
        if not path.exists():
            continue
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def expected():
    names = {f"sdekit/{p.relative_to(ROOT / 'sdekit')}" for p in (ROOT / "sdekit").rglob("*.py") if "analysis" not in p.parts}
    names |= {f"sdekit/analysis/{p.relative_to(ROOT / 'analysis')}" for p in (ROOT / "analysis").rglob("*.py")}
    names |= {f"sdekit/catalogue/{p.name}" for p in (ROOT / "sdekit" / "catalogue").glob("*.toml")}
    names |= {f"sdekit/torch/weights/{p.name}" for p in (ROOT / "sdekit" / "torch" / "weights").iterdir() if p.suffix in {".json", ".safetensors"}}
    return names | {"sdekit/py.typed", "sdekit/analysis/report.css"}


def test_wheel_holds_just_the_package(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected()


def test_sdist_holds_the_real_analysis_folder_once(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = [name.split("/", 1)[1] for name in sdist.getnames() if "/" in name]
    assert "analysis/exact.py" in names
    assert "sdekit/analysis/exact.py" not in names


def test_installed_wheel_works_without_the_repository(built, tmp_path):
    target = tmp_path / "site"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import sdekit as sk\n"
        "from sdekit import analysis\n"
        "law = sk.law.Gaussian(0.0, 0.25)\n"
        "print(sk.__file__, float(analysis.exact_law(sk.catalogue.edm(), method=sk.methods.heun(), grid=sk.grids.karras(18), data=law).cov))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    where, variance = done.stdout.split()
    assert str(target) in where
    assert abs(float(variance) - 0.278388) < 1e-6
