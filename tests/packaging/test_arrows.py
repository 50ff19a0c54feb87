"""Each module imports only from those before it, and only ``_array`` and ``torch`` name torch at import."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ORDER = [
    "_lazy", "errors", "_array", "numeric", "files", "clocks", "kernel", "motion", "comparison", "process", "limits", "zero", "definite",
    "symbolic", "reach", "commuting", "derivation", "certificate", "expression", "blocks", "recipe", "completeness", "equation", "moving", "spec",
    "writing", "catalogue", "reversal", "noise", "brownian", "staging", "law", "denoiser", "imperfect", "propagation", "reverse", "increments",
    "pieces", "tableau", "modes", "methods", "control", "grids", "hitting", "plans", "pfgm", "tables", "compatibility", "semilinear", "solve",
    "pairs", "slots", "adaptive", "legs", "sampling", "inversion", "parallel", "pictures", "record", "runs", "sweeps", "forward", "simulation",
    "analysis", "testing", "torch", "cli", "__main__",
]  # fmt: skip
LAZY = {  # arrows upwards that wait for a call, and why
    ("analysis", "torch"),  # the report samples images
    ("noise", "torch"),  # normals for arrays on a device are made there
}


def rooms():
    for folder, prefix in ((ROOT / "sdekit", ""), (ROOT / "analysis", "analysis")):
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if relative.parts[0] == "analysis" and not prefix:
                continue
            room = prefix or relative.parts[0].removesuffix(".py")
            if room != "__init__":
                yield room, path, (["analysis", *relative.parts] if prefix else list(relative.parts))


def arrows(path, parts):
    """Rooms that a module imports at its top, and inside functions."""
    tree = ast.parse(path.read_text())
    for_checkers = {id(node) for block in ast.walk(tree) if _is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ["sdekit", *parts][: -node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                full = [*base[1:], *name.split(".")]
                if full and full[0] in ORDER and full[0] != parts[0].removesuffix(".py"):
                    yield full[0], node.col_offset == 0


def _is_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_every_room_has_its_place():
    assert {room for room, _, _ in rooms()} == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_arrows_point_downwards(room):
    wrong = []
    for name, path, parts in rooms():
        if name != room:
            continue
        for target, at_top in arrows(path, parts):
            if ORDER.index(target) > ORDER.index(room) and (at_top or (room, target) not in LAZY):
                wrong.append(f"{path.relative_to(ROOT)} imports {target}")
    assert not wrong


def test_torch_is_named_at_import_only_in_its_room():
    for room, path, _ in rooms():
        if room == "torch":
            continue
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in {"torch", "diffusers", "sklearn", "safetensors", "matplotlib", "tqdm"} for name in names), path


def test_no_file_outgrows_a_reader():
    for _, path, _ in rooms():
        assert len(path.read_text().splitlines()) <= 400, path


def test_nothing_evaluates_text_or_unpickles():
    banned = {"eval", "exec", "parse_expr", "lambdify", "__import__"}
    for _, path, _ in rooms():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
                assert not (isinstance(node.func, ast.Name) and name in banned), f"{path}: {name}"
                assert name not in {"parse_expr", "lambdify"}, f"{path}: {name}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
                loads = {"pickle", "dill", "shelve", "marshal"}
                loads |= {"joblib"} if path.name != "sweeps.py" else set()  # there it carries work between its own processes only
                assert not loads & {n.split(".")[0] for n in names}, path
