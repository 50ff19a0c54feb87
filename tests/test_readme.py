"""The README's example runs as it stands and prints what it says; the notebooks are committed without outputs."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "stationary   PROVED" in said
    assert "0.42057339702" in said
    assert "ode order 2.001 in [2.001, 2.004], claimed 2: confirmed" in said
    assert len([line for line in code.splitlines() if line.strip()]) <= 22


def test_commands_of_the_readme_exist():
    from sdekit.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    used = set(re.findall(r"sdekit ([a-z]+) [a-z]", (ROOT / "README.md").read_text())) - {"as", "import"}
    assert used <= known
    assert known <= used


def test_makefile_has_the_two_commands():
    makefile = (ROOT / "Makefile").read_text()
    assert "sdekit report psld --data digits -o report/" in makefile
    assert re.search(r"^demo: ", makefile, re.MULTILINE)
    assert re.search(r"^test: ", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_notebooks_carry_no_outputs():
    notebooks = list((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            assert cell.get("outputs", []) == []
            assert cell.get("execution_count") is None


def test_figures_are_drawn_from_data_that_can_be_made_again():
    import numpy as np

    import sdekit as sk

    with np.load(ROOT / "paper_figures" / "recipe" / "data" / "sigma_eff.npz", allow_pickle=False) as data:
        t, names, levels = data["t"], list(data["names"]), data["levels"]
    for name, level in zip(names, levels, strict=True):
        process = sk.catalogue.vp() if name == "vp" else sk.catalogue.psld(Gamma=float(name.removeprefix("psld_")))
        assert np.allclose(process.sigma_eff(t), level, rtol=1e-12, atol=0)
    # the table of recipe 3.3, computed elsewhere
    at = dict(zip(names, levels[:, np.argmin(np.abs(t - 1e-3))], strict=True))
    assert abs(at["psld_0.01"] / 8.9700119e-3 - 1) < 1e-7
    assert abs(at["psld_0"] / 6.7648407e-4 - 1) < 1e-7
    assert abs(at["vp"] / 1.0485993e-2 - 1) < 1e-7
