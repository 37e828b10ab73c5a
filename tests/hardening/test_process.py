"""How other programs are run: to their end, with their words as evidence, and never longer than whoever wants them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.process import HEARS, dies_with_us, pipe_to, run, stop_running
from hardening.foundation.settings import ROOT
from tests.support.loop import processes, until


def test_a_command_gets_its_input_and_environment_and_tells_what_it_printed(tmp_path: Path) -> None:
    """In the directory that was asked for."""
    done = run(["sh", "-c", 'cat; echo "$MORE" >&2; pwd'], stdin="given\n", env={"MORE": "so"}, cwd=tmp_path)
    assert (done.status, done.stdout, done.stderr) == (0, f"given\n{tmp_path}\n", "so\n")


def test_a_command_that_fails_shows_its_last_words_unless_its_status_was_expected() -> None:
    """With the command itself, so that a person can try it."""
    with pytest.raises(OutsideError, match="sh ended with status 3") as error:
        run(["sh", "-c", "echo it broke >&2; exit 3"], hint="try again")
    assert error.value.evidence.splitlines()[-1] == "it broke"
    assert error.value.hint == "try again"
    assert run(["sh", "-c", "exit 3"], ok=(0, 3)).status == 3


def test_a_program_that_is_not_there_is_named() -> None:
    """With the command that shows what is missing."""
    with pytest.raises(OutsideError, match="no-such-program is not installed") as error:
        run(["no-such-program"])
    assert "doctor" in error.value.hint


def test_a_command_that_is_late_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Its children too."""
    mark = f"sleep 6{os.getpid()}"
    with pytest.raises(OutsideError, match="did not finish within"):
        run(["sh", "-c", f"{mark} & wait"], timeout=0.3)
    until(lambda: processes(mark) == [], "the end of what it started")


def test_a_command_is_ended_once_it_is_enough_and_is_else_heard_to_its_end(tmp_path: Path) -> None:
    """With all of its output, however often it was looked at."""
    written = tmp_path / "written"
    with pytest.raises(LateError):
        run(
            ["sh", "-c", f"yes >{written}"],
            timeout=600,
            enough=lambda: written.exists() and written.stat().st_size > 99,
        )
    assert processes("yes >") == []
    done = run(["sh", "-c", "echo one; sleep 1; echo two"], timeout=600, enough=lambda: False)
    assert done.stdout == "one\ntwo\n"
    with pytest.raises(LateError, match=r"did not finish within 0\.3 s"):
        run(["sleep", "600"], timeout=0.3, enough=lambda: False)


def test_a_command_is_fed_while_it_runs(tmp_path: Path) -> None:
    """More than a pipe holds, byte for byte."""
    target, data = tmp_path / "fed", os.urandom(1 << 20)
    pipe_to(["sh", "-c", f"cat >{target}; echo $MORE >>{target}"], lambda sink: sink.write(data), env={"MORE": "so"})
    assert target.read_bytes() == data + b"so\n"


def test_a_fed_command_that_ends_early_is_the_error_not_the_broken_pipe() -> None:
    """What it said and its status come out, although it had not read everything."""
    with pytest.raises(OutsideError, match="sh ended with status 3") as error:
        pipe_to(["sh", "-c", "echo it broke >&2; exit 3"], lambda sink: sink.write(bytes(1 << 20)), hint="try again")
    assert error.value.evidence.splitlines()[-1] == "it broke"
    assert error.value.hint == "try again"


def test_a_fed_command_ends_when_nothing_more_comes() -> None:
    """Where the feeding fails, that is the error, and the command does not take half of it for the whole."""
    mark = f"sleep 8{os.getpid()}"
    with pytest.raises(ZeroDivisionError):
        pipe_to(["sh", "-c", f"cat; {mark}"], lambda sink: sink.write(bytes(1 // 0)))
    until(lambda: not processes(mark), "the end of what was killed")


@pytest.mark.needs("root", "setpriv", "unshare")
def test_a_bound_command_dies_with_whoever_is_killed_even_if_it_is_silent() -> None:
    """Nothing that it prints to a reader who is gone is needed to end it; what it has started goes too."""
    mark = f"sleep 7{os.getpid()}"
    program = f"from hardening.foundation.process import bound, run; run(bound(['sh', '-c', '{mark} & wait']))"
    running = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    until(lambda: [line for line in processes(mark) if line.startswith("sleep")], "its start")
    running.send_signal(signal.SIGKILL)
    running.wait()
    until(lambda: not processes(mark), "its end")


LITTLE = """
import os, resource, threading, time
import tasks
from hardening.foundation.process import run, threads
def probe(c):
    with threads(9) as pool:
        for each in [pool.submit(time.sleep, 0.2) for _ in range(9)]: each.result()
def other(c):
    raise RuntimeError("a bug")
def child(c):
    os.setuid(65534)  # root may start as many as it likes
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    run(["true"])
for each in (probe, other, child): tasks.command(each)
threading.stack_size(1 << 30); resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
tasks.main("{}")
"""


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("task", "said"),
    [("probe", "can't start new thread: this machine, or our container, allows no more\n  hint: raise"),
     ("child", "Resource temporarily unavailable: this machine, or our container, allows no more\n  hint: raise"),
     ("other", "RuntimeError: a bug")],
)  # fmt: skip
def test_a_machine_that_starts_no_more_threads_or_processes_is_one_error(task: str, said: str) -> None:
    """Whatever starts them. A bug of ours keeps its traceback."""
    done = subprocess.run(
        [sys.executable, "-c", LITTLE.replace("{}", task)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert said in done.stderr
    assert done.returncode == (1 if task == "other" else OutsideError.exit_code)
    assert ("Traceback" in done.stderr) is (task == "other")


@pytest.mark.needs("setpriv")
def test_a_command_whose_caller_was_killed_before_it_could_die_with_it_never_begins(tmp_path: Path) -> None:
    """A busy machine may take its time before the parent-death signal is set; by then there may be no parent."""
    slow, begun = tmp_path / "setpriv", tmp_path / "begun"
    real = shutil.which("setpriv")
    slow.write_text(f'#!/bin/sh\ntouch {begun}\nread -r line < {tmp_path}/goes-on\nexec {real} "$@"\n')
    slow.chmod(0o755)
    os.mkfifo(tmp_path / "goes-on")
    made = tmp_path / "made"
    program = f"from hardening.foundation.process import dies_with_us, run; run(dies_with_us(['touch', '{made}']))"
    path = f"{tmp_path}:{os.environ['PATH']}"
    running = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PATH": path})
    until(begun.exists, "its start")
    running.send_signal(signal.SIGKILL)
    running.wait()
    (tmp_path / "goes-on").write_text("now\n")
    until(lambda: not processes(str(made)), "its end")
    assert not made.exists()


@pytest.mark.needs("setpriv")
def test_a_command_that_dies_with_us_is_named_by_its_own_name() -> None:
    """And its status is its own."""
    with pytest.raises(OutsideError, match=r"^ls ended with status 2") as error:
        run(dies_with_us(["ls", "/none/such"]))
    assert error.value.evidence.splitlines()[0] == "$ ls /none/such"
    with pytest.raises(LateError, match=r"^sleep did not finish within 0\.1 s") as late:
        run(dies_with_us(["sleep", "600"]), timeout=0.1)
    assert late.value.evidence == "sleep 600"


def test_whoever_tells_us_to_stop_waits_for_no_command_of_a_thread_and_its_cleaning_up_is_done(tmp_path: Path) -> None:
    """Ctrl-C: what runs is ended with all that it started, the next in the queue never begins, nothing is recorded."""
    mark = f"sleep 6{os.getpid()}"
    program = f"""
from hardening.foundation.process import run, threads
def work(number):
    try:
        run(["sh", "-c", "{mark} & wait"])
    except Exception:
        open("{tmp_path}/recorded", "w")
    finally:
        run(["touch", f"{tmp_path}/cleaned{{number}}"])
with threads(1) as pool:
    for each in [pool.submit(work, number) for number in (1, 2)]:
        each.result()
"""
    running = subprocess.Popen([*HEARS, sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    until(lambda: [line for line in processes(mark) if line.startswith("sleep")], "its start")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert b"KeyboardInterrupt" in said
    assert processes(mark) == []
    assert [path.name for path in tmp_path.iterdir()] == ["cleaned1"]


def test_a_command_that_starts_while_we_are_told_to_stop_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process exists before we know it: whoever waited for its end waited for ever."""
    start = subprocess.Popen

    def interrupted(*args: Any, **more: Any) -> Any:
        child = start(*args, **more)
        stop_running()
        return child

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "600"], timeout=60)


INTERRUPTED = """
import threading
start = threading.Thread.start
def interrupted(thread):
    start(thread)
    raise KeyboardInterrupt
threading.Thread.start = interrupted
"""


@pytest.mark.parametrize("when", ["", INTERRUPTED], ids=["while it looks", "while it starts"])
def test_who_tells_us_to_stop_while_a_thread_looks_is_not_followed_by_what_it_would_begin(
    tmp_path: Path, when: str
) -> None:
    """Ctrl-C: a thread that runs no command at that moment goes on, and its work of hours must not begin then. Where it
    has just started, its pool does not know of it.
    """
    looks, begun = (tmp_path / name for name in ("looks", "begun"))
    program = f"""
from pathlib import Path
from hardening.foundation.process import _told_to_stop, run_ours, threads
{when}
def work():
    Path("{looks}").touch()
    _told_to_stop.wait()
    run_ours(["sh", "-c", "sleep 60; touch {begun}"], cwd=Path("/"))
with threads(1) as pool:
    pool.submit(work).result()
"""
    running = subprocess.Popen([*HEARS, sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    until(looks.exists, "its start")
    if not when:
        running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert b"KeyboardInterrupt" in said
    assert not begun.exists()


OURS = """
import time
from pathlib import Path
from hardening.foundation import process
{before}
with process.threads(1) as pool:
    running = pool.submit(process.run_ours, ["sh", "-c", {script!r}], cwd=Path("/"))
    while not (running.done() or (process._running and Path({begun!r}).exists())):  # one not known yet is ended at once
        time.sleep(0.01)
    Path({begun!r} + "-and-known").touch()
    running.result()
"""


def running_ours(folder: Path, trap: str, before: str = "") -> subprocess.Popen[bytes]:
    """A process that runs one of ours, which has begun by now, and what that does where it is asked to end."""
    script = f"trap '{trap}' INT; touch {folder}/begun; while :; do sleep 0.05; done"
    program = OURS.format(script=script, before=before, begun=f"{folder}/begun")
    running = subprocess.Popen([*HEARS, sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    until((folder / "begun-and-known").exists, "its start")
    return running


@pytest.mark.parametrize("ignores", [False, True])
def test_a_process_of_ours_that_is_told_to_stop_ends_its_step_and_may_not_take_for_ever(
    tmp_path: Path, ignores: bool
) -> None:
    """Ctrl-C: what it acts on would be left half done. One that does not end is ended."""
    trap = f"sleep 1; touch {tmp_path}/done; exit"
    running = running_ours(tmp_path, *(("", "process.LEAVE_SECONDS = 0.5") if ignores else (trap, "")))
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert b"KeyboardInterrupt" in said
    assert (tmp_path / "done").exists() is not ignores
    assert processes(f"touch {tmp_path}/begun") == []


def test_who_tells_us_to_stop_again_waits_for_no_process_of_ours(tmp_path: Path) -> None:
    """A person may have to leave."""
    running = running_ours(tmp_path, f"touch {tmp_path}/asked", "process.LEAVE_SECONDS = 3600")
    running.send_signal(signal.SIGINT)
    until((tmp_path / "asked").exists, "its being asked")
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=600)
    assert processes(f"touch {tmp_path}/begun") == []


ATTENDED = """
from pathlib import Path
from threading import Event
from hardening.foundation.process import interruptible, run, threads
def work():
    try:
        run(["sh", "-c", "touch {folder}/begun; sleep 600"])
    finally:
        {cleaning}
with interruptible(), threads(1) as pool:
    pool.submit(work).result()
"""


@pytest.mark.parametrize("cleaning", ["Path('{0}/cleaned').touch()", "Path('{0}/cleaning').touch(); Event().wait()"])
def test_ctrl_c_in_a_build_says_so_at_once_and_the_second_waits_for_nothing(tmp_path: Path, cleaning: str) -> None:
    """One line before anything is cleaned up, the status that shells expect, and no traceback."""
    program = ATTENDED.format(folder=tmp_path, cleaning=cleaning.format(tmp_path))
    running = subprocess.Popen([*HEARS, sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until((tmp_path / "begun").exists, "its start")
    running.send_signal(signal.SIGINT)
    assert running.stderr
    first = running.stderr.readline()
    assert first == "interrupted: ending what runs; Ctrl-C again ends at once, without cleaning up\n"
    if "cleaning" in cleaning:
        until((tmp_path / "cleaning").exists, "its cleaning up")
        running.send_signal(signal.SIGINT)
    assert (running.communicate()[1], running.returncode) == ("", 130)
    assert processes(f"touch {tmp_path}/begun") == []
    assert (tmp_path / "cleaned").exists() is ("cleaned" in cleaning)
