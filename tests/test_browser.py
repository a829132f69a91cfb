"""The demo's page and wse.js in Chromium: tabs are devices, a torn cable heals, and so on.

With PICTURES set, what the pages look like goes into docs/images (`make pictures`).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from support import real_time

from wse import WseServer
from wse.cli.meeting import PASSPHRASES, Meeting, pages

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
IMAGES = Path(__file__).parent.parent / "docs" / "images"
# Without the background's networking: it would look for hosts that a closed network refuses.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install the package chromium"),
    pytest.mark.timeout(120),
]


class Visit:
    """The demo's server, and a browser at its page."""

    def __init__(self, meeting: Meeting, url: str, browser: Browser) -> None:
        self.meeting = meeting
        self.url = url
        self.browser = browser
        self.errors: list[str] = []

    async def window(self, **options: Any) -> BrowserContext:
        """Another browser window, or another phone: it shares nothing with others."""
        options.setdefault("viewport", {"width": 1080, "height": 860})
        return await self.browser.new_context(**options)

    async def tab(self, window: BrowserContext | None = None) -> Page:
        page = await (window or await self.window()).new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        await page.goto(self.url)
        return page

    async def signed_in(self, name: str, window: BrowserContext | None = None) -> Page:
        page = await self.tab(window)
        await sign_in(page, name)
        await expect(page.locator("#state")).to_have_text("connected")
        return page


async def sign_in(page: Page, name: str, passphrase: str | None = None) -> None:
    await page.select_option("#name", name)
    await page.fill("#passphrase", passphrase or PASSPHRASES[name])
    await page.click("#sign-in button")


async def picture(page: Page, name: str) -> None:
    if "PICTURES" in os.environ:
        IMAGES.mkdir(exist_ok=True)
        await page.screenshot(path=IMAGES / f"{name}.png", full_page=True)


@asynccontextmanager
async def visiting() -> AsyncIterator[Visit]:
    meeting = Meeting()
    async with (
        meeting.server.listen(port=0, pages=pages()) as listener,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        visit = Visit(meeting, f"http://127.0.0.1:{listener.port}/", browser)
        try:
            yield visit
        finally:
            await browser.close()
        assert visit.errors == []


def story(tell: Callable[[Visit], Awaitable[None]]) -> Callable[[], None]:
    """Run a story that visits the page."""

    @real_time
    async def test() -> None:
        async with visiting() as visit:
            await tell(visit)

    return test


# -- the door --------------------------------------------------------------------------------------


@story
async def test_who_has_the_passphrase_comes_in_and_others_do_not(visit: Visit) -> None:
    page = await visit.tab()
    await picture(page, "door")
    await sign_in(page, "alice", "a guess")
    await expect(page.get_by_role("alert")).to_have_text("Refused: that is not the passphrase.")
    await picture(page, "refused")
    assert not visit.meeting.server.clients
    await sign_in(page, "alice")
    await expect(page.locator("#people li")).to_have_text("alice1 device, you")
    frames = await page.locator("#frames").inner_text()
    assert PASSPHRASES["alice"] not in frames
    assert '["~wse:challenge",{"nonce":' in frames


@story
async def test_everything_can_be_done_from_the_keyboard(visit: Visit) -> None:
    page = await visit.tab()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSPHRASES["alice"])
    await page.keyboard.press("Enter")
    await expect(page.locator("#state")).to_have_text("connected")
    await page.keyboard.type("typed, not clicked")
    await page.keyboard.press("Enter")
    await expect(page.locator("#messages")).to_contain_text("typed, not clicked")


# -- people and devices ----------------------------------------------------------------------------


@story
async def test_tabs_are_devices_of_one_user_and_another_user_is_another(visit: Visit) -> None:
    window = await visit.window()
    first = await visit.signed_in("alice", window)
    second = await visit.signed_in("alice", window)
    bob = await visit.signed_in("bob")
    for page in (first, second):
        await expect(page.locator("#people li")).to_have_text(
            ["alice2 devices, you", "bob1 device"]
        )
        await expect(page.locator("#devices li")).to_have_count(2)

    await bob.fill("#text", "Hello, everybody!")
    await bob.click("#say button")
    for page in (first, second, bob):
        await expect(page.locator("#messages")).to_contain_text("Hello, everybody!")

    await bob.select_option("#to", "person alice")
    await bob.fill("#text", "for Alice alone")
    await bob.click("#say button")
    for page in (first, second, bob):
        await expect(page.locator("#messages")).to_contain_text("bob to alice: for Alice alone")

    await first.select_option("#to", label="my device 2")
    await first.fill("#text", "for the other tab")
    await first.click("#say button")
    for page in (first, second):
        await expect(page.locator("#messages")).to_contain_text("for the other tab")
    assert "for the other tab" not in await bob.locator("#messages").inner_text()

    await first.click("#add button")
    await expect(first.locator("#sum")).to_have_text("= 8")
    await first.fill("#a", "five")
    await first.click("#add button")
    await expect(first.locator("#sum")).to_have_text("wse.invalid-payload at $.a")
    await first.click("#ask")
    await expect(first.locator("#asked")).to_contain_text(re.compile("screen: 1080 . 860"))
    await picture(first, "room")


@story
async def test_a_device_may_drop_another_of_the_same_user(visit: Visit) -> None:
    window = await visit.window()
    first = await visit.signed_in("alice", window)
    second = await visit.signed_in("alice", window)
    await first.get_by_label("Drop device 2").click()
    await expect(second.locator("#sent-away")).to_contain_text("dropped by another of your devices")
    await picture(second, "dropped")
    await expect(first.locator("#devices li")).to_have_count(1)
    await second.click("#again")
    await expect(second.locator("#state")).to_have_text("connected")
    await expect(first.locator("#devices li")).to_have_count(2)


@story
async def test_a_tab_too_many_sends_the_oldest_away_which_says_so(visit: Visit) -> None:
    window = await visit.window()
    tabs = [await visit.signed_in("alice", window) for _ in range(4)]
    oldest, *others = tabs
    await expect(oldest.locator("#sent-away")).to_contain_text("another device of yours")
    await picture(oldest, "evicted")
    for page in others:
        await expect(page.locator("#devices li")).to_have_count(3)
    await asyncio.sleep(0)
    assert len(visit.meeting.server.clients["alice"].conns) == 3


# -- the network -----------------------------------------------------------------------------------


@story
async def test_a_torn_cable_heals(visit: Visit) -> None:
    alice = await visit.signed_in("alice")
    bob = await visit.signed_in("bob")
    await alice.click("#tear")
    await expect(alice.locator("#messages")).to_contain_text("disconnected: 1006")
    await expect(alice.locator("#state")).to_have_text("connected")
    await expect(bob.locator("#people li")).to_have_text(["alice1 device", "bob1 device, you"])
    await bob.fill("#text", "welcome back")
    await bob.click("#say button")
    await expect(alice.locator("#messages")).to_contain_text("welcome back")


@story
async def test_a_server_that_is_away_is_waited_for(visit: Visit) -> None:
    alice = await visit.signed_in("alice")
    with visit.meeting.server.acceptor.shut():
        await visit.meeting.server.close()
        await expect(alice.locator("#state")).to_have_text("coming back …")
        await expect(alice.locator("#say button")).to_be_disabled()
        await picture(alice, "coming-back")
    await expect(alice.locator("#state")).to_have_text("connected", timeout=20_000)


@story
async def test_a_page_that_floods_is_sent_away_and_comes_back(visit: Visit) -> None:
    alice = await visit.signed_in("alice")
    bob = await visit.signed_in("bob")
    await alice.evaluate(
        """async () => {
          const { WseClient } = await import("/wse.js");
          const { hmac } = await import("/hmac.js");
          const client = new WseClient(location.origin.replace("http", "ws") + "/ws");
          client.challenge((quest) => hmac("violet umbrella", quest.nonce));
          client.when.closed((code, reason) => { window.flooded = `${code} ${reason}`; });
          await client.connect("alice", { name: "a script" });
          for (let n = 0; n < 1000; n += 1) client.send("say-all", `flood ${n}`);
        }"""
    )
    await alice.wait_for_function("window.flooded === '1013 wse.rate-limit'")
    await expect(bob.locator("#state")).to_have_text("connected")
    assert "flood 500" not in await bob.locator("#messages").inner_text()


# -- phones, and the dark --------------------------------------------------------------------------


@story
async def test_the_page_fits_a_phone_also_in_the_dark(visit: Visit) -> None:
    phone = await visit.window(
        viewport={"width": 360, "height": 740},
        color_scheme="dark",
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
    )
    page = await visit.signed_in("carol", phone)
    await page.fill("#text", "a word that is " + "very" * 40 + " long")
    await page.tap("#say button")
    await expect(page.locator("#messages")).to_contain_text("very" * 40)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(overflow) == 0
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    assert await page.evaluate(paper) == "rgb(23, 22, 26)"
    await picture(page, "phone")


# -- other origins ---------------------------------------------------------------------------------


@real_time
async def test_a_page_of_another_origin_is_kept_out(caplog: pytest.LogCaptureFixture) -> None:
    """The page is the meeting's, the server that it wants to talk to is another."""
    other: WseServer = WseServer(lambda attempt: attempt.accept("anybody"))
    async with visiting() as visit, other.listen(port=0) as listener:
        page = await visit.tab()
        failed = await page.evaluate(
            """async (url) => {
              const { WseClient } = await import("/wse.js");
              try {
                await new WseClient(url).connect();
              } catch (error) {
                return error.code;
              }
            }""",
            f"ws://127.0.0.1:{listener.port}/",
        )
    assert failed == "wse.client.ws-error"
    assert other.stats().refused == {"origin": 1}
    assert f"origins=['{visit.url.rstrip('/')}']" in caplog.text
