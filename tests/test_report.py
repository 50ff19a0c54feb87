"""The report: one page without outside references, whose numbers are those of the library; the derivation's equations."""

import base64
import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import sympy as sp

from sdekit import BadInput, analysis, catalogue, certify, grids, methods
from sdekit.analysis import report
from sdekit.derivation import _one_rate
from sdekit.recipe import resolved

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags that are not closed, addresses, and the cells of all tables by row."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.rows = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.mark.images
def test_page(tmp_path):
    from sdekit.torch import digits

    process = catalogue.psld()
    made = report.write(process, tmp_path / "page", quick=True, progress=False)
    page = Page(made.read_text("utf-8"))
    assert page.open == []
    assert [path.name for path in made.parent.iterdir()] == ["index.html"]
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    cells = {row[0]: row[1:] for row in page.rows if len(row) > 1}
    for name, claim in certify(process.recipe).claims():
        assert cells[name] == [str(claim.verdict), claim.statement, claim.evidence]
    head = ["NFE 10", "NFE 20", "NFE 50"]
    table = page.rows[next(i for i, row in enumerate(page.rows) if row[1:] == head) :]
    law = digits().gaussian()
    for name, method in (("exponential(2)", methods.exponential(2)), ("euler_maruyama", methods.euler_maruyama())):
        row = next(row for row in table if row[0] == name)
        exact = [analysis.exact_law(process, method=method, grid=grids.karras(n), data=law).w2 for n in (10, 20, 50)]
        np.testing.assert_allclose([float(cell) for cell in row[1:]], exact, rtol=1e-3)
    verdicts = [row[-1] for row in page.rows if len(row) == 6 and row[1] in {"ode", "weak", "exact start"}]
    assert verdicts == ["confirmed"] * 12
    pictures = [base64.b64decode(a.partition(",")[2]) for a in page.addresses if a.startswith("data:image/png")]
    assert len(pictures) == 5  # held out, and two processes at two numbers of calls
    assert len({bytes(p) for p in pictures}) == 5
    assert all(p.startswith(b"\x89PNG") for p in pictures)


@pytest.mark.images
def test_an_unwritable_folder_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file"):
        report.write(catalogue.vp(), tmp_path / "file" / "page", progress=False)


@pytest.mark.parametrize("name", ["vp", "ve", "edm", "cld", "psld"])
def test_derivation(name):
    """Its equations are well-formed MathML, and writing E for an exponential changes no value."""
    recipe = resolved(catalogue.recipe(name), {})
    for equation in re.findall(r"<math.*?</math>", certify(recipe).derivation().html()):
        ET.fromstring(re.sub(r"&(?!lt|gt|amp)\w+;", lambda entity: unescape(entity[0]), equation))
    kernel = recipe.kernel()
    before = [kernel.short_mean, kernel.short_cov]
    after, rate = _one_rate(before)
    assert bool(rate) == any(matrix.has(sp.exp) for matrix in before)
    for old, new in zip(before, after, strict=True):
        assert not new.has(sp.exp)
        assert (new.subs(rate) - old).applyfunc(sp.simplify).is_zero_matrix
