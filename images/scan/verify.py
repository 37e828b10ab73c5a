"""Verify: every control's check against the built filesystem, with the image really run beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardening.check import run_checks
from hardening.findings import BaseImage, CheckResult, ImageFacts, Outcome, result_of
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import hex_of
from hardening.foundation.process import pipe_from
from hardening.foundation.timing import step
from hardening.gate import enforced_as
from hardening.model import Enforcement, Waiver
from hardening.render import Overlay
from hardening.waivers import OFFERED, STARTS, about_check, waived_by
from images.boot import Level, boot, merge_live
from images.boot.observations import own_result
from images.build.workspace import TRIAL, WORK_LABEL
from images.engine import engine
from images.model import Definition
from images.store.oci import Store

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

SMOKE_SECONDS = 60
START_SECONDS = 60  # from start to healthy
ASKED_EACH = 200_000_000  # nanoseconds; a trial asks the image's health check more often than the image says
ASK_AGAIN = 0.1  # seconds between two looks at what it said
NOTHING_TO_ASK = "there is no health check to ask: give healthcheck.command, or none_because where it runs nothing"
CANNOT_START = 127
TIMED_OUT = 124
SMOKE_FACTS = "RUN_"  # checks that name RUN_STATUS or RUN_LOG wait for the smoke command
MOST_PROCESSES, MOST_MEMORY = 4096, "4g"  # of an image that nobody trusts yet
LOG_SIZE = "512k"  # of what it prints the engine keeps the newest only: two files of this size


def facts_of(
    definition: Definition, config: dict[str, Any], run: tuple[int, str] | None, declared: tuple[str, ...] = ()
) -> ImageFacts:
    """What checks may know of an image beside its tree; `run` is the trial's status and output. Pure."""
    inner = config.get("config", {})
    history = [
        *(entry.get("created_by", "") for entry in config.get("history", [])),
        *inner.get("Env", []),
        *(f"{key}={value}" for key, value in (inner.get("Labels") or {}).items()),
    ]
    test = (inner.get("Healthcheck") or {}).get("Test", [])
    return ImageFacts(
        user=inner.get("User", ""),
        healthcheck=" ".join(test),
        healthcheck_reason=definition.healthcheck.none_because,
        history=tuple(history),
        config=config,
        run_status=run[0] if run else None,
        run_log=run[1] if run else "",
        declared=declared,
    )


def verify(
    definition: Definition, overlay: Overlay, *, tree: Path, digest: str, store: Store, work: Path, docker_host: str,
    declared: tuple[str, ...] = (), level: Level = Level.RELEASE, twice: bool | None = None,
) -> tuple[CheckResult, ...]:  # fmt: skip
    """Run the image `digest`, then every check of the overlay over its `tree`; one result for each control.

    A container's start as it is shipped adds one more (`STARTS`).

    A machine is booted from its disk instead, at `level`, and asked again there; what only that showed follows.
    `twice`: it is booted a second time; the default for all levels but QUICK. Its console goes to `console_log`.
    """
    config = store.config(digest)
    if definition.is_machine:
        with step("checks"):
            static = run_checks(overlay, tree, ImageFacts(config=config, declared=declared))
        (room := work / "boot").mkdir()
        disk = store.disk(config["disk"]["linear"])
        with step("boot"):
            report = boot(disk, overlay, level=level, listens=config["listens"], work=room, twice=twice)
        log = console_log(store, definition.name)
        log.parent.mkdir(exist_ok=True)
        log.write_text(report.console)
        return every(merge_live(static, report.results), overlay)

    def checks(run: tuple[int, str] | None, *, asks: bool) -> tuple[CheckResult, ...]:
        """The results of those checks that ask, or do not, what became of the smoke command."""
        chosen = tuple(check for check in overlay.checks if (SMOKE_FACTS in check.text) is asks)
        return run_checks(replace(overlay, checks=chosen), tree, facts_of(definition, config, run, declared))

    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(checks, None, asks=False)
        tried = try_image(definition, config, digest, store, work, docker_host, partial(checks, asks=True))
        with step("checks"):
            results = {result.control: result for result in (*running.result(), *tried.checks)}
    ordered = [results[check.control] for check in overlay.checks if check.control in results]
    return every([*ordered, *tried.starts], overlay)


def offered(strange: Sequence[str]) -> tuple[CheckResult, ...]:
    """The result of `Planner.not_offered`; none where nothing is strange. Pure."""
    return (own_result(OFFERED, Outcome.FAIL, "\n".join(strange)),) if strange else ()


def console_log(store: Store, name: str) -> Path:
    """Where stands what the machine `name` said when it was last booted here."""
    return store.bottom.own_place("logs", f"{name}.console.log")


def refusals(
    results: Iterable[CheckResult],
    subject: str = "",
    waivers: Sequence[Waiver] = (),
    today: date = date.min,
    bases: Sequence[BaseImage] = (),
) -> tuple[CheckResult, ...]:
    """The results that refuse the image `subject`: enforced, neither passed nor not applicable, and not waived. Pure.

    `bases` are the images that it stands on.

    An error refuses like a failure: a check that could not look has not passed.
    """
    good = {Outcome.PASS, Outcome.NOT_APPLICABLE}
    broken = [r for r in results if r.enforcement is Enforcement.ENFORCE and r.outcome not in good]
    return tuple(r for r in broken if not waived_by(waivers, about_check(r.control, bases, r.evidence), subject, today))


def waived(
    results: Iterable[CheckResult],
    subject: str,
    waivers: Sequence[Waiver],
    today: date,
    bases: Sequence[BaseImage] = (),
) -> tuple[str, ...]:
    """What would refuse the image `subject` but for a waiver: the control, and the waiver with its end. Pure."""
    refusing = [(result.control, about_check(result.control, bases, result.evidence)) for result in refusals(results)]
    found = ((control, waived_by(waivers, about, subject, today)) for control, about in refusing)
    return tuple(f"{control} is waived by {by.id} until {by.expires}" for control, by in found if by)


def without_result(results: Iterable[CheckResult], overlay: Overlay, definition: Definition) -> tuple[str, ...]:
    """The controls of `overlay` that do not have exactly one of the results: none of them is known to hold. Pure.

    So is `STARTS` for a container that runs by itself.
    """
    found = Counter(result.control for result in results)
    wanted = [*(check.control for check in overlay.checks), *([STARTS] if runs_by_itself(definition) else [])]
    return tuple(control for control in wanted if found[control] != 1)


def changed_checks(scripts: Mapping[str, str], overlay: Overlay) -> tuple[str, ...]:
    """The controls of `overlay` whose results were made by another check, or by other parameters, than it has. Pure.

    `scripts` has the digest of the check that made each result, by control.
    """
    return tuple(control for control, script in overlay.parts["checks"] if scripts.get(control) != script)


def runs_by_itself(definition: Definition) -> bool:
    """Whether a definition is a container's that does not say that it runs nothing. Pure."""
    return not definition.is_machine and not definition.healthcheck.none_because


def every(results: Sequence[CheckResult], overlay: Overlay) -> tuple[CheckResult, ...]:
    """The results, and one for each control of `overlay` without one: it was not evaluated. Pure."""
    known = {result.control for result in results}
    lost = [check for check in overlay.checks if check.control not in known]
    return (*results, *(result_of(check, Outcome.NOT_EVALUATED, "its check told no result") for check in lost))


def enforced_by(results: Iterable[CheckResult], overlay: Overlay) -> tuple[CheckResult, ...]:
    """The results as the profile of `overlay` asks for them today, see `enforced_as`. Pure."""
    return enforced_as(results, {check.control: check.enforcement for check in overlay.checks})


@dataclass(frozen=True)
class Trial:
    """What became of an image that was really run; empty where it says that it runs nothing.

    `smoke`: its smoke command's exit status and output. `starts`: whether it gets healthy as it was shipped. `checks`:
    the results of its checks, which ran meanwhile.
    """

    smoke: tuple[int, str] | None = None
    starts: tuple[CheckResult, ...] = ()
    checks: tuple[CheckResult, ...] = ()


def try_image(
    definition: Definition, config: dict[str, Any], digest: str, store: Store, work: Path, docker_host: str,
    checks: Callable[[tuple[int, str] | None], tuple[CheckResult, ...]] = lambda _smoke: (),
) -> Trial:  # fmt: skip
    """Run the definition's smoke command in the image `digest`, then the image as it is shipped, beside its `checks`,
    which are given what became of the smoke command; both as its default user, with `--read-only --cap-drop ALL
    --security-opt no-new-privileges` and no network.

    Nothing of it stays on the engine. Raises OutsideError when the engine fails, not when the image does.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    by_itself = runs_by_itself(definition)
    if not definition.smoke and not by_itself:
        return Trial(checks=checks(None))
    client = engine(docker_host)
    tag = f"goldsmith.invalid/trial/{work.name}:{digest[7:19]}"

    def tried(*, own: bool) -> Trial:
        with step("load"):
            load_into(store, digest, tag, work, docker_host, own=own)
        try:
            with ThreadPoolExecutor(1) as beside:
                started = beside.submit(_start, client, tag, definition, config, work.name) if by_itself else None
                with step("smoke"):
                    smoke = _smoke(client, tag, definition, work.name) if definition.smoke else None
                results = checks(smoke)
                with step("start"):
                    return Trial(smoke, (started.result(),) if started else (), results)
        finally:
            with step("clean up"):
                client.images.remove(tag, force=True)

    try:
        with suppress(DockerException):  # it has not built on the base here, or not lately
            return tried(own=True)
        return tried(own=False)
    except (DockerException, RequestException) as error:
        raise OutsideError(f"the trial of {definition.name} could not run", evidence=str(error)) from None


def load_into(store: Store, digest: str, tag: str, work: Path, docker_host: str, *, own: bool = False) -> None:
    """Give the image to the engine as an OCI layout, under the name `tag`.

    `own`: of its layers only its own one, the last. An engine that lacks the others says so now, or when a container is
    made (Docker 28).
    """
    layout = work / f"{TRIAL}{digest[7:19]}"
    store.layout_for(digest, layout, {"io.containerd.image.name": tag})
    below = [f"--exclude=./blobs/sha256/{hex_of(layer.digest)}" for layer in store.layers_of(digest)[:-1] if own]
    pipe_from(["tar", "-C", str(layout), *below, "-cf", "-", "."], engine(docker_host).images.load)


def _smoke(client: DockerClient, tag: str, definition: Definition, work_id: str) -> tuple[int, str]:
    from requests.exceptions import ConnectionError, ReadTimeout  # noqa: A004

    command, arguments = list(definition.smoke[:1]), list(definition.smoke[1:])
    with _created(client, tag, definition, work_id, command=arguments, entrypoint=command) as container:
        if refused := _cannot_start(container):
            return CANNOT_START, refused
        try:
            status = int(container.wait(timeout=SMOKE_SECONDS)["StatusCode"])
        except (ConnectionError, ReadTimeout):  # requests raises either one when the time is over
            return TIMED_OUT, f"it did not end within {SMOKE_SECONDS} s\n{_logs(container)}"
        return status, _logs(container)


def _start(client: DockerClient, tag: str, definition: Definition, config: dict[str, Any], work_id: str) -> CheckResult:
    """Start the image by its own entrypoint, and ask its own health check until that is content, or time is over."""
    asked = ((config.get("config") or {}).get("Healthcheck") or {}).get("Test") or ["NONE"]
    if asked[0] == "NONE":
        return own_result(STARTS, Outcome.FAIL, NOTHING_TO_ASK)
    with _created(client, tag, definition, work_id, healthcheck={"interval": ASKED_EACH}) as container:
        return own_result(STARTS, *until_healthy(client, container, START_SECONDS))


def until_healthy(client: DockerClient, container: Container, seconds: float) -> tuple[Outcome, str]:
    """Start a container and wait `seconds` for its own health check to be content; what it printed, or why not."""
    if refused := _cannot_start(container):
        return Outcome.FAIL, f"it cannot be started: {refused}"
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        state = client.api.inspect_container(str(container.id))["State"]
        health = state.get("Health") or {}
        if not state["Running"]:
            return Outcome.FAIL, f"it ended with status {state['ExitCode']}\n{_logs(container)}"
        if health.get("Status") == "healthy":
            return Outcome.PASS, f"healthy as shipped\n{_logs(container)}"
        time.sleep(ASK_AGAIN)
    last = (health.get("Log") or [{}])[-1].get("Output", "").strip() or "nothing"
    said = f"its health check did not pass within {seconds:g} s, and said last: {last}"
    return Outcome.FAIL, f"{said}\n{_logs(container)}"


def as_meant(definition: Definition) -> dict[str, Any]:
    """How the engine is told to run an image as its definition means it: read-only, no privilege, its tmpfs."""
    from docker.types import LogConfig

    return {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "tmpfs": dict.fromkeys(definition.tmpfs, "mode=1777"),
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": LOG_SIZE, "max-file": "2"}),
    }


@contextmanager
def _created(client: DockerClient, tag: str, definition: Definition, work_id: str, **more: Any) -> Iterator[Container]:
    """A container with no privilege and no network, not started yet; it is gone afterwards."""
    container = client.containers.create(
        tag,
        network_mode="none",
        labels={WORK_LABEL: work_id},
        pids_limit=MOST_PROCESSES,
        mem_limit=MOST_MEMORY,
        **as_meant(definition),
        **more,
    )
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def _cannot_start(container: Container) -> str:
    """Why the engine cannot start it, which is the image's fault; empty where it runs."""
    from docker.errors import APIError

    try:
        container.start()
    except APIError as error:
        return error.explanation or str(error)
    return ""


def _logs(container: Container) -> str:
    return str(container.logs().decode(errors="replace"))
