"""The page in a real browser: nothing that axe finds, nothing that is fetched, and all of it by the keyboard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from hardening.foundation.process import which
from hardening.foundation.settings import Settings
from images.context import Context
from pipelines.cli.blast_radius import record_radius
from pipelines.cli.page import ROWS, render_html
from pipelines.cli.report import gather_all
from tests.support.watched import NOW, PLANTED, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]
MEMBERS = 70


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=which("chromium"))
        yield started
        started.close()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Two fleets that have run for weeks."""
    return watched(tmp_path_factory.mktemp("watched"), MEMBERS)


@pytest.fixture(scope="module")
def file(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as a file on the disk."""
    made = tmp_path_factory.mktemp("page") / "report.html"
    record_radius(context)
    made.write_text(render_html(*gather_all(context)))
    return made


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """The page at an address; in the end it has said nothing on its console, and asked for nothing but what is ours."""
    asked, said = list[str](), list[str]()
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    try:
        yield page
        itself = address.partition("#")[0]
        assert [one for one in asked if not one.startswith(itself)] == []
        assert said == []
        if address.startswith("file:"):
            assert asked == [itself], "a file asks for nothing but itself"
    finally:
        context.close()


def found_by_axe(page: Page, within: str = "html") -> list[tuple[str, str]]:
    """What axe finds, as rule and first element."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context=within, options={"resultTypes": ["violations"]}).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found]


def test_axe_finds_nothing(browser: Browser, file: Path) -> None:
    """With all unfolded, and in a member's violations: light and wide, dark and narrow. Nothing is wider than it."""
    with opened(browser, file.as_uri()) as page:
        for theme, width in (("light", 1200), ("dark", 380)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            assert found_by_axe(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.locator("[data-member]").first.click()
            assert found_by_axe(page, "#detail") == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.keyboard.press("Escape")


def test_a_command_can_be_copied_and_is_selected_whole_without_scripts(browser: Browser, file: Path) -> None:
    """Each on one line; the button is only there with the script."""
    with opened(browser, file.as_uri(), permissions=["clipboard-read", "clipboard-write"]) as page:
        command = page.locator("table .command").first
        command.get_by_role("button", name="Copy ./goldsmith").click()
        command.get_by_text("Copied", exact=True).wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert (copied, copied[:12]) == (command.locator("code").inner_text(), "./goldsmith ")
        lines = "[...document.querySelectorAll('td .command code')].map((one) => one.getClientRects().length)"
        assert set(page.evaluate(lines)) == {1}
    with opened(browser, file.as_uri(), java_script_enabled=False) as page:
        code = page.locator("table .command code").first
        code.click()
        assert page.locator("button.copy").count() == 0
        assert code.evaluate("(one) => getComputedStyle(one).userSelect") == "all"


def test_the_keyboard_alone_sorts_filters_and_opens_a_member(browser: Browser, file: Path) -> None:
    """And closes it again; the focus is where it was."""
    with opened(browser, file.as_uri()) as page:
        rows = page.locator("#member-rows tr")
        _tab_to(page, "document.activeElement.id === 'search'")
        page.keyboard.type("warehouse privileged")
        assert rows.count() == len([n for n in range(MEMBERS // 2) if n % 15 == 1 and n % 25 != 4])
        assert page.locator("#count").inner_text().startswith(f"{rows.count()} of {MEMBERS} members")
        _tab_to(page, "document.activeElement.textContent === 'Since, UTC'")
        page.keyboard.press("Enter")
        assert page.locator("#member-table [aria-sort=ascending]").inner_text().startswith("Since")
        upwards = page.locator("#member-rows [data-is=since]").all_inner_texts()
        page.keyboard.press("Enter")
        assert page.locator("#member-rows [data-is=since]").all_inner_texts() == sorted(upwards, reverse=True)
        _tab_to(page, "document.activeElement.dataset.member")
        name = page.evaluate("document.activeElement.dataset.member")
        page.keyboard.press("Enter")
        detail = page.locator("#detail")
        assert detail.get_by_role("heading", level=2).inner_text() == name
        for text in ("docker run flags", "whoever runs its host", "./goldsmith fleet.explain", "root-user"):
            assert text in detail.text_content()
        page.keyboard.press("Escape")
        assert not detail.is_visible()
        assert page.evaluate("document.activeElement.dataset.member") == name


def _tab_to(page: Page, there: str) -> None:
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate(f"Boolean({there})"):
            return
    pytest.fail(f"the keyboard does not reach {there}")


def test_filters_more_rows_and_the_release_of_a_member(browser: Browser, file: Path) -> None:
    """All that a pointer does."""
    with opened(browser, file.as_uri()) as page:
        rows = page.locator("#member-rows tr")
        assert rows.count() == ROWS
        page.locator("#more").click()
        assert rows.count() == MEMBERS
        page.locator("#by-fleet").select_option("shop")
        page.locator("#by-rule").select_option("expired")
        assert rows.count() == len([n for n in range(MEMBERS // 2) if n % 10 == 0 and n % 25 != 4])
        page.locator("#by-state").select_option("within policy")
        assert rows.count() == 0
        page.locator("summary", has_text="debian-base of").first.click()
        page.locator("[data-release]").first.click()
        assert rows.count() > 0
        page.locator("#member-rows [data-member]").first.click()
        page.get_by_role("button", name="Show its release").click()
        assert page.evaluate("document.activeElement.closest('details').open")
        assert "openssl" in page.locator("details:focus-within").inner_text()


def test_what_strangers_wrote_is_shown_and_not_run(browser: Browser, context: Context, file: Path) -> None:
    """A link to a member opens it: its name, image and evidence are text. The console would say what was refused."""
    name = f"shop/web-00002{PLANTED}"
    with opened(browser, f"{file.as_uri()}#member={quote(name, safe='')}") as page:
        assert page.locator("#detail-title").inner_text() == name
        assert page.locator("#detail-body").get_by_text(PLANTED).count() >= 3
        assert page.locator("img").count() == 0
        assert page.title().startswith("Goldsmith")
    for stamp in ("", "1"):
        html = render_html(*gather_all(context), stamp=stamp)
        escaping = file.with_name(f"escaping{stamp}.html")
        escaping.write_text(html.replace("<main>", f"<main>{PLANTED}"))
        page = browser.new_page()
        page.goto(escaping.as_uri())
        assert page.locator("main > script").count() == 1
        assert page.title().startswith("Goldsmith"), "were it not escaped, the page's policy would still not run it"
        page.close()


def test_without_scripts_members_are_there(browser: Browser, file: Path) -> None:
    """Those that need somebody first."""
    with opened(browser, file.as_uri(), java_script_enabled=False) as page:
        assert page.locator("#member-rows tr").count() == ROWS
        assert not page.locator("#filters").is_visible()
        assert f"The first {ROWS} of {MEMBERS} members" in page.locator("#count").inner_text()


def test_without_members_there_is_nothing_to_search(browser: Browser, tmp_path: Path) -> None:
    """What to type stands there alone."""
    page_file = tmp_path / "report.html"
    page_file.write_text(render_html(*gather_all(Context(Settings(state=tmp_path), NOW, lambda: "", lambda: ""))))
    with opened(browser, page_file.as_uri()) as page:
        assert "No fleet has been checked yet" in page.locator("main").inner_text()
        for left_out in ("#filters", "#count", "#member-table"):
            assert not page.locator(left_out).is_visible()


def test_a_live_page_shows_what_is_new_and_keeps_what_was_asked(browser: Browser, context: Context) -> None:
    """The state changes while somebody looks: the page does, and what was typed and focused stays."""
    state = {"stamp": "1"}
    with _served(context, state) as address, opened(browser, address) as page:
        page.locator("#search").fill("web-00001")
        context.ledger.audit(NOW, "bob-was-here", "look", "shop")
        state["stamp"] = "2"
        page.get_by_text("bob-was-here").wait_for()
        assert page.locator("#search").input_value() == "web-00001"
        assert page.evaluate("document.activeElement.id") == "search"
        assert page.locator("#member-rows tr").count() == 2
        assert found_by_axe(page, ".lead") == []


@contextmanager
def _served(context: Context, state: dict[str, str]) -> Iterator[str]:
    """The page by `serve`'s own application."""
    import socket

    import uvicorn

    from hardening.foundation.settings import Serve
    from pipelines.cli.page import content_policy
    from pipelines.cli.serve import _config
    from pipelines.serve.app import Answers
    from pipelines.serve.live import LivePage
    from pipelines.serve.moments import Schedule
    from pipelines.serve.runner import Runner

    def made(stamp: str) -> str:
        return render_html(*gather_all(context), stamp=stamp)

    live, leaving = LivePage(lambda: state["stamp"], made, content_policy(live=True)), threading.Event()
    runner = Runner(context.ledger, Schedule.of(Serve(nightly="", urgent="")), lambda: context.now, ("true",))
    server = uvicorn.Server(_config(Answers(context.ledger, runner, None, str, lambda: context.now, live, leaving)))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    finally:
        leaving.set()
        server.should_exit = True
        thread.join()
