"""Throws malformed and hostile specs at load, certify and process: ``python tests/fuzz/fuzz_specs.py --count 20000 --seed 0``.

Each must give a recipe, or BadInput or Refuted with one line, within two seconds of processor time and without touching anything outside.
"""

import argparse
import collections
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import sdekit as sk
from sdekit.spec import load

LIMIT = 2.0
CATALOGUE = [path.read_bytes() for path in sorted((Path(sk.__file__).parent / "catalogue").glob("*.toml"))]
TEMPLATE = """name = "{name}"
paper = "{paper}"
state = {state}
[parameters]
a = {a}
b = {{value = {b}, assume = "{assume}"}}
[recipe]
H = {H}
D = {D}
Q = {Q}
[clock]
kind = "{kind}"
{clock}
[initial]
m = {m}
"""
PLAIN = {
    "name": "mine", "paper": "", "state": '["x", "m"]', "a": "0.5", "b": "2", "assume": "positive", "H": '"x**2/2 + m**2/(2*a)"',
    "D": '[["b/2", "0"], ["0", "a"]]', "Q": '[["0", "0"], ["0", "0"]]', "kind": "linear", "clock": "beta_min = 0.1\nbeta_max = 20", "m": '"0.04*a"',
}  # fmt: skip
CLOCKS = [
    ("constant", "beta = 2"), ("exponential", "beta_min = 0.1\nbeta_max = 3"), ("cosine", ""), ("expression", 'rate = "8*(1+t)**2"'),
    ("expression", 'rate = "a*exp(t) + b*t**3"\nT = 2'), ("linear", 'beta_min = "a"\nbeta_max = "b"'),
]  # fmt: skip
CANARY = "canary-of-the-fuzzer"
CODE = [
    f"__import__('os').system('touch {CANARY}')", f"open('{CANARY}','w')", "exec('1')", "eval('1')", "().__class__.__mro__[1].__subclasses__()",
    "x.__class__", "x.free_symbols", "lambda: 0", "(lambda: 0)()", "[x for x in (1,)]", "{x for x in (1,)}", "f'{x}'", "f'{open(1)}'", "(y := 1)",
    "x if m else 0", "x or m", "not x", "x[0]", "x, m", "*x", "**x", "exp(*x)", "exp(x=1)", "exp()", "exp", "yield", "await x", "print(x)",
    "globals()",
    "breakpoint()", "x; m", "x = 1", "import os", "del x", "'a'*9**9", "b'1'", "...", "None", "True", "1j", "x @ m", "x // m", "x % m", "x << 9**9",
    "~x", "x < m", "x is 1", "1if 1else 2", "0x10", "0b1", "1_0", "1__0", "\\\\d", "`x`", "${x}", "%s", "{{7*7}}", "<script>", "E", "I", "oo",
    "zoo", "nan",
    "S", "Symbol('x')", "Integer(1)", "pi()", "exp(exp)", "__builtins__", "_", "x.real", "1.real", "x.__init__.__globals__['os']", "os.system", "B",
    "t",
    "U(x)", "Piecewise((x, m))", "Derivative(x)", "diff(x)", "Abs(x)", "sign(x)", "sqrt()", "Matrix([1])",
]  # fmt: skip
NUMBERS = [
    "9**9**9", "9**9**9**9", "2**2**2**2**2**2", "(9**9)**(9**9)", "1e999", "1e300", "1e-300", "-1e308", "1e99999999999", "9" * 60, "9" * 61,
    "9" * 1900,
    "0." + "0" * 58 + "1", "1/0", "0/0", "0**0", "0**-1", "x/0", "log(0)", "sqrt(-1)", "(-1)**(1/2)", "(-8)**(1/3)", "exp(1e300)", "exp(exp(exp(9)))",
    "exp(-exp(exp(9)))", "exp(700)", "exp(200)*exp(200)", "log(log(2))", "log(-1)", "tan(pi/2)", "1/sin(pi)", "1/(sqrt(2)**2-2)",
    "1/(sin(1)**2+cos(1)**2-1)",
    "sin(1e50)", "sin(10**30)", "pi**32", "(x+m)**32", "(x+m+a+b)**32", "((x+m)**8)**4", "((x+m)**30)**30", "x**33", "x**-32", "x**(1/7)", "x**(1/6)",
    "(x+m)**(-1/2)", "1e100*x**2", "(1e90*x)**2", "-0", "--x", "+-+-x", "1e5", "0.1e-5", "sqrt(2)", "sqrt(" * 30 + "x" + ")" * 30,
    "exp(" * 30 + "x" + ")" * 30,
    "sin(" * 5 + "x" + ")" * 5, "1/(1+" * 12 + "x" + ")" * 12, "x" + "*x" * 30, "x" + "*x" * 40, "x" + "+x" * 900, "(" * 90 + "x" + ")" * 90,
    "(" * 900 + "x" + ")" * 900, "-" * 39 + "x", "-" * 1900 + "x", "*".join(["(x+m)"] * 32), "*".join(["(x+m+1)"] * 16), "*".join(["(a+b)"] * 300),
    "*".join(f"(x+{i})" for i in range(20)), "+".join(f"1/(x+{i})" for i in range(20)), "+".join(f"1/(x*a+m*b+{i})" for i in range(8)),
    "+".join(f"exp(x*{i})" for i in range(60)), "+".join(f"sin({i}*x)*cos({i}*m)" for i in range(12)), "+".join(f"sqrt(x+{i})" for i in range(8)),
    "+".join(f"tanh(x+{i}*m)" for i in range(8)), "tanh(x)**20", "tan(x)**20", "sin(x)**32", "(sin(x)+cos(m))**12", "exp(sin(exp(sin(x))))",
    "log(log(log(x)))",
    "x**2/2 + m**2/2 + sin(x)", "x**4 + m**4 + x**2*m**2", "(x**2+m**2)**16", "1/(x**2+m**2+1)**16", "sqrt(x**2+m**2+sqrt(x**4+1))",
    "a**(1/2)*b**(1/3)*x**2",
]  # fmt: skip
TEXTS = [
    "", " ", "\\u0000", "\\t", "\\n", "x\\nm", "\\u202ex", "\\u0445", "\\uff58", "x\\u0301", "\\u00b2", "x\\u00b2", "\\ufeffx", "\\u2212x",
    "x\\u00a0+m", "\\u2028", "x#m", "'", "\\\"",
    "\\U0001F600", "x" * 33, "x" * 1999, "x" * 2001, "x " * 900, "name", "../../etc/passwd", "%00",
]  # fmt: skip
VALUES = [
    "1", "-1", "0", "1.5", "inf", "-inf", "nan", "true", "false", "[]", "[[]]", "{}", "1979-05-27", "07:32:00", '""', "[1, 2]", '["x"]', '[["x"]]',
    "[[1]]",
    "[[0, 0], [0, 0]]", '{value = 1}', '{value = "x"}', '{assume = "real"}', '{value = {value = 1}}', "[" * 50 + "]" * 50, "[" * 3000 + "]" * 3000,
    "9" * 100, "9" * 5000,
    "1e400", "1e-400", "1e99999999999999999999", "0x" + "f" * 300, "[" + "[0,0]," * 500 + "]", "[" + "0," * 20000 + "]",
    '["x[2]", "m[2]"]', '["x[3]", "m"]', '["x[99999999]", "m"]', '["x[-1]", "m"]', '["x[2][2]", "m"]', '["x[2]", "x1"]', '["x[]"]', '["[2]"]',
    '[["1", ["x1", "x2"]], [["0", "0"], "1"]]', '[[[["1", "0"], ["0", "1"]], "0"], ["0", "m"]]', '[[[[["1"]]], "0"], ["0", "1"]]',
    '[["a", []], ["0", "1"]]',
    '[["0","0","0"],["0","0"]]', '"""x"""', "'x'",
    '["x", "x"]', '["x", "pi"]', '["x", "m", "p"]', '["__class__", "m"]', "{a = 1, b = 2}", '[{kind = "linear"}]', '"' + "(x+m)*" * 300 + '1"',
    "1_000", "+1", "0o7",
]  # fmt: skip
LINES = [
    "[recipe]", "[[recipe]]", "[a.b.c]", "[parameters.a]", "x = 1", "= 1", "[clock", '"" = 1', "a.b = 1", "[initial.m]", "name = 1", 'state = "x"',
    "\x00", "\ufeff", "# \x07",
    "[parameters]\n" + "\n".join(f"p{i} = {i}" for i in range(200)), "a." * 2000 + "a = 1", "[" + ".".join("a" * 300) + "]", "exp = 1",
    "__proto__ = 1", "'''", '"""', "H = 1",
    'drift = ["x", "m"]', "\r", "\x0c", "\u2028",
]  # fmt: skip
ATOMS = ["x", "m", "a", "b", "1", "2", "3", "0", "pi", "0.5", "1e-3", "1/3"]


class Outcome(NamedTuple):
    """What a spec came to: the last stage reached, the seconds it took, and what is wrong with that (empty: nothing)."""

    stage: str
    seconds: float
    wrong: str = ""


class TimeUp(BaseException):
    """The alarm; not an Exception, so that nothing swallows it."""


class Watch:
    """Notes every audited event that a spec has no business with."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self._hook)

    def _hook(self, event, args):
        if not self.on:
            return
        writes = event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+")
        if writes or event in {"os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.putenv", "os.remove", "os.rename", "os.mkdir",
        "os.kill"} \
                or event.startswith(("subprocess.", "socket.", "ctypes.", "shutil.", "urllib.", "pickle.", "webbrowser.")):  # fmt: skip
            self.seen.append(f"{event}{args!r}"[:200])


def formula(rng, depth, atoms=ATOMS):
    """A random formula, mostly well formed."""
    if depth == 0 or rng.random() < 0.25:
        return rng.choice(atoms)
    a, b = formula(rng, depth - 1, atoms), formula(rng, depth - 1, atoms)
    kind = rng.random()
    if kind < 0.65:
        return f"({a}){rng.choice('+-*/')}({b})" if rng.random() < 0.7 else f"{a}{rng.choice('+-*/')}{b}"
    if kind < 0.85:
        return f"({a})**{rng.choice(['2', '3', '-1', '(1/2)', '4', '-2', '(1/3)', '8'])}"
    return f"{rng.choice(['exp', 'log', 'sqrt', 'sin', 'cos', 'tan', 'sinh', 'cosh', 'tanh'])}({a})"


def random_recipe(rng):
    """Random formulas in all places."""
    made = {**PLAIN, "kind": (clock := rng.choice(CLOCKS))[0], "clock": clock[1]}
    quote = lambda depth: f'"{formula(rng, depth)}"'  # noqa: E731
    for key in rng.sample(["H", "D", "Q", "m", "a", "b"], rng.randint(1, 3)):
        depth = rng.randint(0, 4)
        made[key] = f"[[{quote(depth)}, {quote(depth)}], [{quote(depth)}, {quote(depth)}]]" if key in "DQ" else quote(depth)
    return TEMPLATE.format(**made)


def vectors(rng):
    """Random vector blocks, with random entries between them."""
    d = rng.randint(2, 3)
    atoms = [*ATOMS[2:], *(f"{name}{i}" for name in "xm" for i in range(1, d + 1))]
    quote = lambda depth: f'"{formula(rng, depth, atoms)}"'  # noqa: E731
    full = lambda: "[" + ", ".join("[" + ", ".join(quote(1) for _ in range(d)) + "]" for _ in range(d)) + "]"  # noqa: E731
    energy = " + ".join(f"x{i}**2/2 + m{i}**{rng.choice([2, 2, 4])}/2" for i in range(1, d + 1))
    made = {**PLAIN, "state": f'["x[{d}]", "m[{d}]"]', "H": f'"{energy}"', "Q": '[["0", "-1"], ["1", "0"]]'}
    for key in rng.sample(["H", "D", "Q"], rng.randint(0, 2)):
        entry = lambda: full() if rng.random() < 0.2 else quote(rng.randint(0, 2))  # noqa: E731
        made[key] = f"[[{entry()}, {entry()}], [{entry()}, {entry()}]]" if key in "DQ" else quote(3)
    return TEMPLATE.format(**made)


def hostile(rng):
    """A good spec with one or two bad values."""
    made = dict(PLAIN)
    for _ in range(rng.randint(1, 2)):
        key = rng.choice(list(made))
        text = rng.choice(rng.choice([CODE, NUMBERS, TEXTS]))
        quoted = rng.choice([f'"{text}"', f'"({text})"', f'"x + {text}"', f'["{text}"]', f'[["{text}", "0"], ["0", "{text}"]]'])
        value = quoted if rng.random() < 0.75 else rng.choice(VALUES)
        made[key] = text if key in {"name", "paper", "assume", "kind"} else f"rate = {value}" if key == "clock" else value
        if key == "clock":
            made["kind"] = "expression"
    return TEMPLATE.format(**made)


def typed(rng):
    """A good spec with lines in the wrong place or of the wrong type."""
    lines = TEMPLATE.format(**PLAIN).split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        kind = rng.random()
        if kind < 0.4 and "=" in lines[at]:
            lines[at] = f"{lines[at].split('=')[0]}= {rng.choice(VALUES)}"
        elif kind < 0.7:
            lines.insert(at, rng.choice(LINES))
        elif kind < 0.85:
            lines.insert(at, lines[rng.randrange(len(lines))])
        else:
            del lines[at]
    return "\n".join(lines)


def mutated(rng):
    """A catalogue file with bytes changed, cut, or taken from another."""
    data = bytearray(rng.choice(CATALOGUE))
    for _ in range(rng.randint(1, 6)):
        at, kind = rng.randrange(len(data)), rng.random()
        if kind < 0.4:
            data[at] = rng.choice([rng.randrange(256), ord(rng.choice("0123456789+-*/()[]{}\"'=.,xme "))])
        elif kind < 0.6:
            del data[at : at + rng.randint(1, 12)]
        elif kind < 0.8:
            other = rng.choice(CATALOGUE)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.randint(1, 60)]
        else:
            data[at:at] = rng.choice(
                [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xf0\x9f\x98\x80", b"9" * 30, b"(" * 30, b"**9", b"*x" * 40, b"\r\n"]
            )
        if not data:
            break
    return bytes(data)


def whole(rng):
    """Files that are hardly specs at all."""
    return rng.choice(
        [b"", b"\x00" * 100, b"\xff" * 50, b"\xef\xbb\xbf" + CATALOGUE[0], b"[" * 5000, b"a=" + b"[" * 20000, b"{" * 5000, b"#" * 200_000,
        rng.randbytes(300), b"=" * 999,
         CATALOGUE[0] * 2, CATALOGUE[0].replace(b"\n", b"\r\n"), CATALOGUE[0].decode().encode("utf-16"), b"a.b=1\n" * 3000,
         b"".join(b"[t%d]\n" % i for i in range(5000))]
    )  # fmt: skip


def spec(rng):
    """One case."""
    made = rng.choices([random_recipe, hostile, typed, mutated, vectors, whole, lambda r: TEMPLATE.format(**PLAIN)], [4, 6, 4, 6, 1, 0.3, 0.2])[0](
        rng
    )
    return made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass")


def attempt(data, folder, watch, stages=("load", "certify", "process")):
    """Load, certify and build, under the watch and against the clock."""
    path = Path(folder) / "case.toml"
    path.write_bytes(data)
    before, stage, start = dict(os.environ), "load", time.process_time()
    watch.seen.clear()
    watch.on = True
    signal.setitimer(signal.ITIMER_PROF, LIMIT)  # processor time, so that a busy machine makes no failures
    wrong = ""
    try:
        recipe = load(path)
        for stage in stages[1:]:
            sk.certify(recipe, limit=LIMIT / 3) if stage == "certify" else recipe.process(limit=LIMIT / 3)
    except (sk.BadInput, sk.Refuted) as error:
        text = str(error)
        wrong = (
            "" if text and len(text.splitlines()) == 1 and len(text) < 3000 else f"message of {len(text.splitlines())} lines, {len(text)} characters"
        )
        stage += f" {type(error).__name__}"
    except TimeUp as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "sdekit" in Path(frame.filename).parts]
        wrong = f"more than {LIMIT:g} s in {stage} ({Path(own[-1].filename).name} {own[-1].name})" if own else f"more than {LIMIT:g} s in {stage}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        wrong = f"{type(error).__name__} in {stage}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        watch.on = False
    seconds = time.process_time() - start
    if watch.seen:
        wrong = f"side effect: {watch.seen[0]}"
    if Path(CANARY).exists() or before != dict(os.environ):
        wrong = "side effect: a file or the environment changed"
    return Outcome(stage, seconds, wrong)


def alarm():
    """Let the alarm raise TimeUp."""

    def ring(*_):
        raise TimeUp

    signal.signal(signal.SIGPROF, ring)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="print and run one case")
    parser.add_argument("--quiet", action="store_true", help="do not print the specs that fail")
    parser.add_argument("--load-only", action="store_true", help="do not certify or build")
    options = parser.parse_args()
    stages = ("load",) if options.load_only else ("load", "certify", "process")
    watch, counts, failures, slowest = Watch(), collections.Counter(), collections.Counter(), (0.0, 0)
    alarm()
    with tempfile.TemporaryDirectory() as folder:
        for number in [options.only] if options.only is not None else range(options.count):
            data = spec(random.Random(f"{options.seed}/{number}"))
            if options.only is not None:
                print(data.decode("utf-8", "replace"))
            found = attempt(data, folder, watch, stages)
            counts[found.stage] += 1
            slowest = max(slowest, (found.seconds, number))
            if found.wrong:
                failures[found.wrong.split(":")[0]] += 1
                print(f"FAILED case {number} ({found.seconds:.2f} s): {found.wrong}", flush=True)
                if not options.quiet:
                    print(data[:3000].decode("utf-8", "replace"))
    print(f"{sum(counts.values())} specs: {dict(counts)}; slowest {slowest[0]:.2f} s (case {slowest[1]}); failures: {dict(failures) or 'none'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
