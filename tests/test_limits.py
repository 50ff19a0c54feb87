"""A limit of time on algebra."""

import gc
import signal
import threading
import time

import sympy as sp

import sdekit as sk
from sdekit.certificate import Verdict, certify
from sdekit.limits import Watch


def forever():
    while True:
        sum(range(1000))


def test_a_question_ends_with_its_share_and_the_timer_is_given_back():
    watch, start = Watch(0.6), time.monotonic()
    assert "share of 0.6 s" in watch.ask(forever, str)
    assert time.monotonic() - start < 2.0
    assert watch.ask(lambda: "quick", str) == "quick"
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_a_question_inside_another_ends_with_the_outer_one():
    start = time.monotonic()
    assert Watch(0.6).ask(lambda: Watch(60.0).ask(forever, lambda _: "inner"), lambda _: "outer") == "outer"
    assert time.monotonic() - start < 5.0


def test_a_callback_of_the_garbage_collector_does_not_swallow_the_end():
    def slow(phase, info):
        for _ in range(20_000):
            pass

    gc.callbacks.append(slow)  # half of the time is spent in it
    try:
        start = time.monotonic()
        assert "share" in Watch(0.6).ask(lambda: [gc.collect(0) + sum(range(60_000)) for _ in iter(int, 1)], str)
        assert time.monotonic() - start < 5.0
    finally:
        gc.callbacks.remove(slow)


def test_errors_of_the_algebra_are_answers_and_ours_are_not():
    assert "sympy gives up: TypeError: no truth" in Watch(1.0).ask(lambda: (_ for _ in ()).throw(TypeError("no  truth")), str)
    huge = sp.sin(sp.cosh(sp.Rational(10**14, 3)))  # its value needs 10^13 digits of pi
    assert "sympy gives up: MemoryError" in Watch(1.0).ask(lambda: huge.evalf(60), str)
    try:
        Watch(1.0).ask(lambda: {}["missing"], str)
    except KeyError:
        return
    raise AssertionError("a mistake of the program must not become a verdict")


def test_off_the_main_thread_there_is_no_limit_and_no_error():
    found = []
    thread = threading.Thread(target=lambda: found.append(Watch(0.03).ask(lambda: time.sleep(0.05) or "done", str)))
    thread.start()
    thread.join()
    assert found == ["done"]


def test_a_certificate_that_takes_too_long_says_so():
    """Roots of hyperbolic functions of a tangent: sympy differentiates and simplifies for minutes."""
    x, m = sp.symbols("x m", real=True)
    q = sp.sqrt(sp.sinh(x))
    recipe = sk.Recipe((x, m), sp.cosh(sp.tan(1 + x)) + m**2, sp.diag(1, 2), sp.Matrix([[0, q], [-q, 0]]))
    start = time.monotonic()
    certificate = certify(recipe, limit=3.0)
    assert time.monotonic() - start < 10.0
    late = [name for name, claim in certificate.claims() if "share of 3 s" in claim.evidence]
    assert late
    assert all(getattr(certificate, name).verdict is Verdict.UNDECIDED for name in late)
    assert certificate.skew.verdict is Verdict.PROVED
