"""The demo as a recipe: publish, run, plant a vulnerability, find, refuse, fix, replace under load, report."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hardening.foundation.console import out, print_json, print_rule, say
from hardening.foundation.errors import RefusedError
from hardening.foundation.locks import only_one
from hardening.foundation.settings import NONE, REHEARSAL, Docker, Feeds, Judging, Registry, Settings, load_settings
from hardening.foundation.timing import collected, step, told
from images.build.workspace import sweep
from images.context import Context
from images.documents import to_json
from images.release.flow import release_all
from pipelines.cli.affected import show_affected, who_is_affected
from pipelines.cli.image import promote_one
from pipelines.cli.report import write_report
from pipelines.cli.rollout import check_fleet, roll_fleet, show_members, show_roll
from pipelines.contract import DemoOutput
from pipelines.demo import web_service
from pipelines.demo.planted import PACKAGE, VULNERABILITY, write_data
from pipelines.demo.web_service import Stream, steady
from pipelines.host import embedded_registry
from pipelines.host.private_engine import PrivateEngine
from pipelines.host.provision import docker_host
from pipelines.wiring import fleet_host, image_context

CONTENT = Path(__file__).with_name("content")
DEFINITION, PAGE = "images/definitions/demo-web", "files/index.html"
FEED = "known"
AGO = timedelta(days=31)
AFTERWARDS_SECONDS = 2
IMAGES = ("debian-base", "debian-static", "nginx-unprivileged", "demo-web")


def demo(*, keep: bool = False, as_json: bool = False) -> int:
    """Run the loop and say what it showed; exit code 3 if a single request was lost.

    Without `keep` only the report stays, whatever happens on the way. With `as_json` standard output holds the result
    and nothing else. Raises RefusedError when another demo runs on this machine.
    """
    base = load_settings()
    with (
        only_one(base.state_dir / "locks" / "demo.lock", "demo"),
        redirect_stdout(sys.stderr) if as_json else nullcontext(),
    ):
        shown = _loop(base, keep=keep)
    print_json(to_json(shown)) if as_json else _close(shown, own_engine=PrivateEngine(base).answers())
    return 3 if shown.failed else 0


def _loop(base: Settings, *, keep: bool) -> DemoOutput:
    """The loop as a recipe."""
    began = time.monotonic()
    with collected() as steps, _stage(base, keep=keep) as settings:
        today = image_context(settings, policy="demo")
        with _part(1, "first release", "31 days ago: build, harden, verify, scan, judge, publish"):
            write_data(settings.state_dir / FEED, today.now - AGO, planted=False)
            _publish(replace(today, now=today.now - AGO))
            url = _start(today)
            say(f"the service runs at {url}")
        known, reached = time.monotonic(), dict[str, float]()
        with _part(2, "find", f"Today: {VULNERABILITY} in {PACKAGE} of that service becomes known"):
            write_data(settings.state_dir / FEED, today.now, planted=True)
            _find(today)
            reached["found"] = time.monotonic() - known
        with _part(3, "refuse", "The image is refused, and its member is out of policy"):
            _refuse(today)
            reached["refused"] = time.monotonic() - known
        with _part(4, "fix", f"There is no fixed {PACKAGE} yet, so it is left out: a new release"):
            _fix(settings.state_dir / "content" / DEFINITION)
            today = image_context(settings, policy="demo")
            _publish(today)
            reached["fixed"] = time.monotonic() - known
        with _part(5, "replace", "The member is replaced while requests keep coming"):
            stream = _roll(today, url)
            reached["gone"] = time.monotonic() - known
        with _part(6, "gone", "Nothing that runs has it any more"):
            today = image_context(settings, policy="demo")  # as of now, after the rollout
            if show_affected(who_is_affected(VULNERABILITY, today), as_json=False):
                raise RefusedError(f"{VULNERABILITY} is still there", hint="this is a defect: please report it")
            path = _keep_report(today, base)
    return DemoOutput(
        seconds=round(time.monotonic() - began, 1), requests=stream.sent, failed=len(stream.failures),
        slowest_seconds=round(stream.slowest_seconds, 3), report=str(path), kept_at=url if keep else "", steps=steps,
        reached_seconds={name: round(seconds, 1) for name, seconds in reached.items()},
    )  # fmt: skip


def _find(context: Context) -> None:
    """Who has the vulnerability, until when it must be gone, and who acts; no scanner has run since it is known."""
    check_fleet("demo", context)
    show_affected(who_is_affected(VULNERABILITY, context), as_json=False)


def _refuse(context: Context) -> None:
    """Let publish refuse the image. Raises RefusedError if it does not."""
    refused = next((one.error for one in release_all(context, ["demo-web"]) if one.name == "demo-web"), None)
    if not isinstance(refused, RefusedError):
        raise refused or RefusedError("the image was published in spite of it", hint="this is a defect: report it")
    say(f"{refused.message}\n{refused.evidence}")
    show_members(check_fleet("demo", context))


def _fix(folder: Path) -> None:
    """Take the package out of the definition, and change the page."""
    definition = folder / "image.toml"
    definition.write_text(definition.read_text().replace(f'packages = ["{PACKAGE}"]\n', ""))
    (folder / PAGE).write_text("<!doctype html><title>demo</title>release two\n")


@contextmanager
def _part(number: int, name: str, title: str) -> Iterator[None]:
    """A part of the demo, which is a step."""
    print_rule(f"{number}. {title}")
    with step(name), collected(name):  # what is a step within it is told where it ends
        yield


@contextmanager
def _stage(base: Settings, *, keep: bool) -> Iterator[Settings]:
    """The demo's own settings and content; nothing of an earlier demo is there, and at the end nothing of this one."""
    settings = own_settings(base)
    _remove(settings)
    shutil.copytree(CONTENT, settings.state_dir / "content")
    (base.state_dir / "apt").mkdir(exist_ok=True)
    (settings.state_dir / "apt").symlink_to(base.state_dir / "apt")
    (settings.state_dir / REHEARSAL).touch()
    try:
        yield settings
    finally:
        if not keep:
            _remove(settings)


def own_settings(base: Settings) -> Settings:
    """The demo's own ledger, registry and content, beside what the checkout has."""
    state = base.state_dir / "demo"
    engines = Docker(host=docker_host(base, for_builds=False), build_host=docker_host(base, for_builds=True))
    # today's data would be of the future, 31 days ago
    feeds = Feeds(debsecan=NONE, tracker=str(state / FEED), trivy=NONE, kev=NONE, epss=NONE)
    own = {
        "state": state, "database": "", "registry": Registry(), "docker": engines, "feeds": feeds,
        "content": (*base.content, state / "content"),
        "judging": Judging(policies=("demo",), floor="", roots=(*base.judging.roots, state / "content")),
    }  # fmt: skip
    return base.model_copy(update=own)


def _remove(settings: Settings) -> None:
    """Remove a demo whole, one that was kept or killed too: service, registry, what it kept, its images on engines."""
    registry = embedded_registry.known_address(settings)
    sweep(settings, lambda: settings.docker.build_host)
    for host in {settings.docker.host, settings.docker.build_host}:
        web_service.clean(host)
        if registry:
            web_service.forget_images(host, registry)
    embedded_registry.stop(settings)
    shutil.rmtree(settings.state_dir, ignore_errors=True)


def _publish(context: Context) -> None:
    """Bring the demo's images to `stable`; raises what stops the first that fails."""
    for outcome in release_all(context, IMAGES):
        if outcome.error:
            raise outcome.error
        say(f"{outcome.name}: {outcome.built.action}, {outcome.action}, expires {outcome.expires_at:%Y-%m-%d}")
        promote_one(context, outcome.name)


def _start(context: Context) -> str:
    """Start the service on what `stable` names, the proxy on the golden nginx; the address that answers."""
    proxy, web = (f"{context.registry_address()}/{name}:stable" for name in ("nginx-unprivileged", "demo-web"))
    return web_service.start(fleet_host(context), context.settings, proxy_image=proxy, web_image=web)


def _roll(context: Context, url: str) -> Stream:
    """Replace the member under load. Raises RefusedError if the new release never answered."""
    with steady(url) as stream:
        roll = roll_fleet("demo", apply=True, context=context)
        show_roll(roll, as_json=False)
        if roll.failure:
            raise RefusedError(f"the rollout failed: {roll.failure}")
        time.sleep(AFTERWARDS_SECONDS)
    answers = ", ".join(f"{page.rpartition('>')[2]} {number} times" for page, number in stream.answers.items())
    say(f"{stream.sent} requests, {len(stream.failures)} failed, slowest {stream.slowest_seconds:.2f} s: {answers}")
    for failure in stream.failures[:5]:
        say(f"lost: {failure}")
    if not any("two" in text for text in stream.answers):
        raise RefusedError("the new release never answered", hint="this is a defect: please report it")
    return stream


def _keep_report(context: Context, base: Settings) -> Path:
    """The report, moved to where it outlives the demo."""
    made = write_report(context)
    kept = base.state_dir / "reports" / "demo.html"
    kept.parent.mkdir(parents=True, exist_ok=True)
    return made.replace(kept)


def _close(shown: DemoOutput, *, own_engine: bool) -> None:
    """Say what was shown, what to type next, and what still runs; `own_engine`: the one that other commands use too."""
    running = [f"the service at {shown.kept_at}, which the next ./goldsmith demo removes"] if shown.kept_at else []
    running += ["Goldsmith's own Docker Engine, which ./goldsmith teardown --apply removes"] if own_engine else []
    lost = f"{shown.failed} LOST" if shown.failed else "none lost"
    reached = ", ".join(f"{name} after {seconds / 60:.1f} min" for name, seconds in shown.reached_seconds.items())
    lines = [
        f"Done in {shown.seconds:.0f} s: {shown.requests} requests, {lost}.",
        f"{VULNERABILITY} in {PACKAGE} (planted): {reached}.",
        f"It took: {told(shown.steps)}.",
        f"The report: {shown.report}",
        "",
        "Next:",
        "  ./goldsmith image.plan all            what would be built here, and why",
        "  ./goldsmith image.build debian-base   build one, and check it by every control",
        "  ./goldsmith control.list              what hardens an image, and what it costs",
        "  ./goldsmith doctor                    what this machine lacks for real work",
        "",
        f"Still running: {', and '.join(running) or 'nothing'}.",
    ]
    out().print("\n".join(lines), soft_wrap=True)
