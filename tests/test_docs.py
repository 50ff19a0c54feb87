"""The pages of the manual: their code runs as it stands, one page in one namespace; their tables are those that the records make."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda p: p.relative_to(DOCS).stem)
def test_code_runs(page):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [p for p in PAGES if "`tests/" in p.read_text()], ids=lambda p: p.stem)
def test_the_tests_that_a_page_names_exist(page):
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        text = (DOCS.parent / path).read_text()
        assert not name or f"def {name}(" in text, f"{path}::{name}"


@pytest.mark.parametrize("page", ["methods.md", "processes.md"])
def test_tables_are_those_of_the_records(page):
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert (DOCS / page).read_text() == tables.PAGES[page](), "run python docs/tables.py"
