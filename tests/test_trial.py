"""The trial: a package that crashes, hangs, swallows memory or says too much harms nobody and is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.errors import (
    ChecksumMismatch,
    GoldenMismatch,
    InvalidManifest,
    PackageError,
    UnreadableModel,
    UntrustedModel,
    VersionSkew,
)
from service.manifest import Cost
from service.runtimes import Policy
from service.store import Store
from service.trial import BATCHES, Limits, try_out
from tests.conftest import ROOT
from tests.misfits import add_misfit
from tests.originals import keep_originals
from tests.test_catalogue import add_version, break_model, edit

pytestmark = pytest.mark.slow

LIMITS = Limits(timeout_s=60)


def refusal(store: Store, limits: Limits = LIMITS, policy: Policy | None = None) -> PackageError:
    """Try penguins/2 and return the error that it must be refused with."""
    with pytest.raises(PackageError) as caught:
        try_out(store, "penguins", "2", policy or Policy(), limits)
    assert caught.value.detail.startswith("penguins/2")
    assert len(caught.value.detail) < 500
    return caught.value


# What goes well


def test_trial_tells_what_the_package_cost(store: Store) -> None:
    """A package in order costs memory, and no time is taken to measure its speed."""
    cost = try_out(store, "penguins", "1", Policy(), LIMITS)
    assert isinstance(cost, Cost)
    assert cost.process_mib > 0 and cost.model_mib >= 0 and cost.microseconds == {}


def test_trial_measures_where_wanted(store: Store) -> None:
    """With `timings` there is a time for every batch size."""
    cost = try_out(store, "penguins", "1", Policy(), LIMITS, timings=True)
    assert {int(rows) for rows in cost.microseconds} == set(BATCHES)
    assert min(cost.microseconds.values()) > 0


def test_package_within_its_memory_passes(store: Store) -> None:
    """A limit that the demo stays under does not stand in its way."""
    assert try_out(store, "penguins", "1", Policy(), Limits(timeout_s=60, memory_mib=4096)).process_mib > 0


@pytest.mark.parametrize(
    "code",
    [
        "print('loaded')",
        "print('50 %', end='', flush=True)",
        "import atexit; atexit.register(print, 'goodbye')",
        "import os; os.write(1, b'\\xff\\n')",
        "import os; os.write(2, b'\\xff\\n')",
        "print('{}')",
    ],
    ids=["line", "half a line", "at exit", "not UTF-8", "not UTF-8 on stderr", "JSON"],
)
def test_noise_is_passed_over(code: str, store: Store, models_dir: Path) -> None:
    """What a package in order prints, however and wherever, does not stand in its way."""
    add_misfit(models_dir, code)
    assert try_out(store, "penguins", "2", Policy(), LIMITS).process_mib > 0


# What is refused


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os._exit(3)", "could not open it"),
        ("import os; os._exit(0)", "could not open it"),
        ("import os; print('half', flush=True); os._exit(0)", "could not open it"),
        ("import os; os.write(2, b'\\xff\\n'); os._exit(1)", "could not open it"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    ],
    ids=["exit 3", "exit 0", "exit after a line", "exit after bytes", "segfault", "abort", "killed"],
)
def test_3_19_crash_is_a_refusal(code: str, says: str, store: Store, models_dir: Path) -> None:
    """A package that ends its process is refused with what ended it."""
    add_misfit(models_dir, code)
    error = refusal(store)
    assert isinstance(error, UnreadableModel) and says in error.detail


def test_3_19_hang_is_a_refusal(store: Store, models_dir: Path) -> None:
    """A package that takes longer than the limit is refused with the limit."""
    add_misfit(models_dir, "import time; time.sleep(600)")
    error = refusal(store, Limits(timeout_s=4))
    assert isinstance(error, UnreadableModel) and "more than 4 s" in error.detail


def test_3_19_package_cannot_put_off_its_time_limit(store: Store, models_dir: Path) -> None:
    """A package that turns the alarm off, as libraries with timers of their own do, is ended all the same."""
    add_misfit(models_dir, "import signal, time; signal.alarm(0); time.sleep(20)")
    assert "more than 4 s" in refusal(store, Limits(timeout_s=4)).detail


def test_3_19_trial_leaves_no_process_behind(store: Store, models_dir: Path, tmp_path: Path) -> None:
    """What a package starts, as worker processes of its own, ends with the trial, which does not wait for it."""
    witness = tmp_path / "lived-on"
    started = f"import os, subprocess; subprocess.Popen(['sh', '-c', 'sleep 12; touch {witness}'])"
    add_misfit(models_dir, f"{started}; os._exit(1)")
    refusal(store)
    assert not witness.exists()  # else the trial has waited for it


def test_3_19_hunger_is_a_refusal(store: Store, models_dir: Path) -> None:
    """A package that wants more memory than the limit is refused with the limit."""
    add_misfit(models_dir, "kept = bytearray(2 * 2**30)")
    assert "1024 MiB" in refusal(store, Limits(timeout_s=60, memory_mib=1024)).detail


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('/secret/path')",
        "raise SystemExit('/secret/path')",
        "raise KeyboardInterrupt('/secret/path')",
        "import os, sys; sys.stderr.write('cannot find /secret/path\\n'); sys.stderr.flush(); os._exit(1)",
    ],
    ids=["exception", "exit", "interrupt", "last words"],
)
def test_3_19_what_a_package_raises_is_not_repeated(code: str, store: Store, models_dir: Path) -> None:
    """The text of what a package raises, which may hold paths of this machine, goes to the log at most."""
    add_misfit(models_dir, code)
    error = refusal(store)
    assert isinstance(error, UnreadableModel) and "/secret" not in error.detail


def test_3_19_other_answers_are_a_refusal(store: Store, models_dir: Path) -> None:
    """A package that answers its golden rows otherwise than when packed is refused as such."""
    package = add_version(models_dir, "2")
    golden = json.loads((package / "manifest.json").read_text())["golden"]
    edit(package, golden=golden | {"predictions": golden["predictions"][::-1]})
    assert isinstance(refusal(store), GoldenMismatch)


def test_unforeseen_failure_is_a_refusal(store: Store, models_dir: Path, tmp_path: Path) -> None:
    """A package that fails where nobody foresaw it is refused, without a path of this machine."""
    package = add_version(models_dir, "2")
    artifact = json.loads((package / "manifest.json").read_text())["artifacts"][0]
    edit(package, artifacts=[artifact | {"layout": "tensors"}])
    error = refusal(store)
    assert str(tmp_path) not in error.detail and str(ROOT) not in error.detail


def test_refusal_keeps_its_kind(store: Store, models_dir: Path, tmp_path: Path) -> None:
    """A refusal in the child is the same refusal here, with its text."""
    with pytest.raises(InvalidManifest, match="penguins/2"):
        try_out(store, "penguins", "2", Policy(), LIMITS)
    package = add_version(keep_originals(models_dir), "2")
    edit(package, libraries={"scikit-learn": "0.1"})
    assert isinstance(refusal(store), VersionSkew)
    break_model(package)
    assert isinstance(refusal(store, policy=Policy(skew="warn")), ChecksumMismatch)
    assert str(tmp_path) not in refusal(store).detail


def test_3_16_child_has_the_operators_policy(store: Store, models_dir: Path) -> None:
    """What the operator does not trust is not trusted in the child either."""
    add_version(keep_originals(models_dir), "2")
    assert isinstance(refusal(store, policy=Policy(pickle=False)), UntrustedModel)


# Its end


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_for(path: Path) -> str:
    """Wait for a file and return what it says."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path.name} was not written")


def test_child_ends_with_the_process_that_asked(models_dir: Path, tmp_path: Path) -> None:
    """SIGKILL of the process that asked for a trial ends the child too."""
    noted = tmp_path / "pid"
    add_misfit(models_dir, f"import os, time; open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    code = (
        "from pathlib import Path; from service.store import Store; from service.runtimes import Policy\n"
        "from service.trial import Limits, try_out\n"
        f"try_out(Store(Path({str(models_dir)!r})), 'penguins', '2', Policy(), Limits())"
    )
    asking = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        child = int(wait_for(noted))
        assert not ended(child)
        asking.send_signal(signal.SIGKILL)
        asking.wait()
        deadline = time.monotonic() + 30
        while not ended(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ended(child)
    finally:
        asking.kill()
        asking.wait()
        if noted.exists() and not ended(int(noted.read_text())):
            os.kill(int(noted.read_text()), signal.SIGKILL)
