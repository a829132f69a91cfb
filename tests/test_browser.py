"""The demo's page and wse.js in Chromium: tabs are devices, a torn cable heals, and so on.

With PICTURES set, what the pages look like goes into docs/images (`make pictures`).
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from support import real_time

from wse import WseClient, WseServer, hmac_solver
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


class Cable:
    """What every byte between the browser and the server passes through."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._left = math.inf

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have ended it, or it is cut."""
        if not self._left:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ends = {writer, far_writer}
        self._writers |= ends
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        self._writers -= ends
        for end in ends:
            end.close()

    def cut_after(self, size: int) -> None:
        """Cut every connection once so many bytes more have passed, and let none be made then."""
        self._left = size

    def mend(self) -> None:
        self._left = math.inf

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                part = data[: int(min(self._left, len(data)))]
                self._left -= len(part)
                writer.write(part)
                await writer.drain()
                if not self._left:
                    for end in self._writers:
                        end.transport.abort()
            writer.write_eof()


class Visit:
    """The demo's server, and a browser at its page."""

    def __init__(self, meeting: Meeting, cable: Cable, url: str, browser: Browser) -> None:
        self.meeting = meeting
        self.cable = cable
        self.url = url
        self.browser = browser
        self.errors: list[str] = []
        self.log: list[str] = []
        """Who has joined and left."""
        meeting.server.when.joined(lambda client, _: self.log.append(f"{client.cid} joined"))
        meeting.server.when.left(lambda client, *_: self.log.append(f"{client.cid} left"))

    def devices(self, cid: str) -> list[str]:
        """What the devices of a user are called."""
        return [conn.device for conn in self.meeting.server.clients[cid].conns.values()]

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
        cable = Cable(listener.port)
        way = await asyncio.start_server(cable.carry, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{way.sockets[0].getsockname()[1]}/"
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        visit = Visit(meeting, cable, url, browser)
        try:
            yield visit
        finally:
            await browser.close()
            way.close()
            await way.wait_closed()
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
    await expect(page.locator("#people li")).to_have_text("Alice1 device, you")
    frames = await page.locator("#frames").inner_text()
    assert PASSPHRASES["alice"] not in frames
    assert '["~wse:challenge",{"nonce":' in frames


@story
async def test_signing_out_leaves_nothing_for_the_next_person_also_not_what_comes_late(
    visit: Visit,
) -> None:
    page = await visit.tab()
    before = await left_on(page)
    await sign_in(page, "bob", "a guess")
    await expect(page.get_by_role("alert")).to_be_visible()
    await sign_in(page, "bob")
    await page.fill("#text", "a secret of Bob's")
    await page.click("#say button")
    await expect(page.locator("#messages")).to_contain_text("a secret of Bob's")
    await page.click("#add button")
    await page.click("#ask")
    await expect(page.locator("#asked")).to_contain_text("screen")
    await page.fill("#text", "another one, not yet said")
    assert await page.title() == "Bob \u00b7 wse"
    # Two answers are on their way, and the end of the WebSocket is told later still.
    await page.evaluate(
        "for (const id of ['ask', 'tear', 'sign-out']) document.getElementById(id).click()"
    )
    assert await left_on(page) == before
    await expect(page.locator("#name")).to_be_focused()
    await page.focus("#passphrase")
    await page.keyboard.press("Control+z")
    assert await left_on(page) == before

    await sign_in(page, "alice")
    await expect(page.locator("#people li")).to_have_text("Alice1 device, you")
    text = await page.locator("body").inner_text()
    assert "Bob" not in text
    assert "closed" not in text
    await page.click("#sign-out")
    assert await left_on(page) == before


@story
async def test_who_signs_in_again_while_it_connects_is_no_longer_who_they_were(
    visit: Visit,
) -> None:
    page = await visit.tab()
    with visit.meeting.server.acceptor.shut():
        await sign_in(page, "alice")
        await expect(page.locator("#state")).to_have_text("connecting …")
        await sign_in(page, "bob")
    await expect(page.locator("#people li")).to_have_text("Bob1 device, you", timeout=20_000)
    assert set(visit.meeting.server.clients) == {"bob"}
    await page.click("#sign-out")
    await expect(page.locator("#refused")).to_be_empty()


async def left_on(page: Page) -> Any:
    """All that the page holds, and what its fields do."""
    return await page.evaluate(
        """() => [
          document.documentElement.outerHTML,
          [...document.querySelectorAll("input, select")].map(({ value }) => value),
        ]"""
    )


# -- people and devices ----------------------------------------------------------------------------


@story
async def test_tabs_are_devices_of_one_user_and_another_user_is_another(visit: Visit) -> None:
    window = await visit.window()
    first = await visit.signed_in("alice", window)
    second = await visit.signed_in("alice", window)
    bob = await visit.signed_in("bob")
    for page in (first, second):
        await expect(page.locator("#people li")).to_have_text(
            ["Alice2 devices, you", "Bob1 device"]
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
        await expect(page.locator("#messages")).to_contain_text("Bob to Alice: for Alice alone")

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


# -- the keyboard ----------------------------------------------------------------------------------


async def focused(page: Page) -> str:
    """What has the focus."""
    name: str = await page.evaluate(
        """() => {
          const element = document.activeElement;
          return element.id || element.ariaLabel || element.textContent.trim();
        }"""
    )
    return name


async def walk(page: Page, key: str, *, until: str) -> list[str]:
    """What has the focus one after the other, with this key pressed again and again."""
    seen = [await focused(page)]
    while seen[-1] != until:
        await page.keyboard.press(key)
        seen.append(await focused(page))
        assert len(seen) < 30, seen
    return seen


@story
async def test_everything_can_be_done_from_the_keyboard(visit: Visit) -> None:
    page = await visit.tab()
    keyboard = page.keyboard
    await keyboard.press("Tab")
    assert await walk(page, "Tab", until="wse.js") == ["name", "passphrase", "Sign in", "wse.js"]
    await walk(page, "Shift+Tab", until="passphrase")
    await keyboard.type("a guess")
    await keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_be_visible()
    await keyboard.type(PASSPHRASES["alice"])
    await keyboard.press("Enter")
    await expect(page.locator("#state")).to_have_text("connected")
    assert await focused(page) == "text"
    await keyboard.type("typed, not clicked")
    await keyboard.press("Enter")
    await expect(page.locator("#messages")).to_contain_text("typed, not clicked")

    other = await visit.signed_in("alice")
    await expect(page.locator("#devices button")).to_have_count(1)
    assert await walk(page, "Tab", until="wse.js") == [
        "text",
        "Send",
        "a",
        "b",
        "Call",
        "ask",
        "frames",
        "wse.js",
    ]
    assert await walk(page, "Shift+Tab", until="Drop device 2") == [
        *["wse.js", "frames", "ask", "Call", "b", "a", "Send", "text"],
        *["to", "messages", "sign-out", "tear", "Drop device 2"],
    ]
    await keyboard.press("Enter")
    await expect(page.locator("#devices button")).to_have_count(0)
    assert await focused(page) == "devices-title"

    await expect(other.locator("#sent-away")).to_be_visible()
    assert await focused(other) == "text"
    await walk(other, "Shift+Tab", until="again")
    await other.keyboard.press("Enter")
    await expect(other.locator("#state")).to_have_text("connected")
    assert await focused(other) == "text"

    await expect(page.locator("#devices button")).to_have_count(1)
    assert await walk(page, "Tab", until="tear") == ["devices-title", "Drop device 2", "tear"]
    await keyboard.press("Enter")
    await expect(page.locator("#messages")).to_contain_text("connection lost: 1006")
    assert await focused(page) == "tear"
    await expect(page.locator("#state")).to_have_text("connected")
    assert await walk(page, "Tab", until="sign-out") == ["tear", "sign-out"]
    await keyboard.press("Enter")
    await expect(page.locator("#state")).to_have_text("not connected")
    assert await focused(page) == "name"


@story
async def test_what_is_typed_while_the_server_is_away_is_kept_and_can_be_sent_later(
    visit: Visit,
) -> None:
    alice = await visit.signed_in("alice")
    await alice.keyboard.type("half a sentence")
    with visit.meeting.server.acceptor.shut():
        await visit.meeting.server.close()
        await expect(alice.locator("#state")).to_have_text("coming back …")
        await expect(alice.locator("#tear")).to_be_disabled()
        await alice.focus("#a")
        await alice.keyboard.press("Enter")
        await alice.focus("#tear")
        await alice.keyboard.press("Enter")
        await expect(alice.locator("#messages")).to_contain_text("not cut: not connected now")
        await alice.focus("#text")
        await alice.keyboard.type(", and the rest")
        await picture(alice, "coming-back")
    await expect(alice.locator("#state")).to_have_text("connected", timeout=20_000)
    await expect(alice.locator("#messages")).to_contain_text(
        "the session is over: 1 of your messages perhaps did not arrive"
    )
    await expect(alice.locator("#sum")).to_have_text("the connection was lost")
    await expect(alice.locator("#tear")).to_be_enabled()
    assert await focused(alice) == "text"
    await alice.keyboard.press("Enter")
    await expect(alice.locator("#messages")).to_contain_text(
        "Alice to everybody: half a sentence, and the rest"
    )
    await expect(alice.locator("#text")).to_have_value("")


@story
async def test_what_has_the_focus_keeps_it_while_others_come_and_go(visit: Visit) -> None:
    first, second, third = [await visit.signed_in("alice") for _ in range(3)]
    await first.get_by_label("Drop device 3").focus()
    await second.click("#sign-out")
    await expect(first.locator("#devices li")).to_have_count(2)
    assert await focused(first) == "Drop device 2"
    await third.click("#sign-out")
    await expect(first.locator("#devices li")).to_have_count(1)
    assert await focused(first) == "devices-title"

    bob = await visit.signed_in("bob")
    await first.select_option("#to", label="Bob")
    await first.focus("#to")
    await first.evaluate("window.chosen = document.activeElement.selectedOptions[0]")
    carol = await visit.signed_in("carol")
    await expect(first.locator("#people li")).to_have_count(3)
    assert await first.evaluate("document.activeElement.selectedOptions[0] === window.chosen")
    await carol.click("#sign-out")
    await bob.close()  # which might be a page that is loaded again
    await expect(first.locator("#people li")).to_have_count(1, timeout=20_000)
    assert await focused(first) == "to"


@story
async def test_what_is_written_to_somebody_who_has_gone_does_not_go_to_everybody(
    visit: Visit,
) -> None:
    alice = await visit.signed_in("alice")
    bob = await visit.signed_in("bob")
    carol = await visit.signed_in("carol")
    await alice.select_option("#to", label="Bob")
    await bob.click("#sign-out")
    chosen = alice.locator("#to option:checked")
    await expect(chosen).to_have_text("Bob, gone")
    await alice.fill("#text", "for Bob alone")
    await alice.press("#text", "Enter")
    await expect(alice.locator("#messages")).to_contain_text("not sent: Bob, gone")
    another = await visit.signed_in("carol")
    await expect(alice.locator("#people")).to_contain_text("Carol2 devices")
    await expect(chosen).to_have_text("Bob, gone")
    await another.click("#sign-out")
    await sign_in(bob, "bob")
    await expect(chosen).to_have_text("Bob")
    await alice.press("#text", "Enter")
    for page in (alice, bob):
        await expect(page.locator("#messages")).to_contain_text("Alice to Bob: for Bob alone")
    await alice.select_option("#to", label="everybody")
    await bob.click("#sign-out")
    await expect(alice.locator("#to option")).to_have_text(
        ["everybody", "all my devices", "Carol", "my device 1"]
    )
    assert "for Bob alone" not in await carol.locator("body").inner_text()


# -- the network -----------------------------------------------------------------------------------


@story
async def test_a_torn_cable_heals(visit: Visit) -> None:
    alice = await visit.signed_in("alice")
    bob = await visit.signed_in("bob")
    await alice.click("#tear")
    await expect(alice.locator("#messages")).to_contain_text("connection lost: 1006")
    await expect(alice.locator("#messages")).to_contain_text("back, and nothing is missing")
    await expect(alice.locator("#state")).to_have_text("connected")
    await expect(bob.locator("#people li")).to_have_text(["Alice1 device", "Bob1 device, you"])
    await bob.fill("#text", "welcome back")
    await bob.click("#say button")
    await expect(alice.locator("#messages")).to_contain_text("welcome back")


@story
async def test_a_page_that_alone_knows_that_its_connection_is_lost_takes_its_place_again(
    visit: Visit,
) -> None:
    window = await visit.window()
    await window.add_init_script(
        """WebSocket = class extends WebSocket {
          constructor(...args) {
            super(...args);
            window.latest = this;
          }
        }"""
    )
    page = await visit.signed_in("alice", window)
    devices = page.locator("#devices li")
    await expect(devices).to_have_text([re.compile("this one")])
    await page.evaluate("latest.onclose({ code: 1006, reason: '' })")
    await expect(page.locator("#messages")).to_contain_text("back, and nothing is missing")
    await expect(devices).to_have_text([re.compile("this one")])
    await expect(page.locator("#state")).to_have_text("connected")
    assert visit.log == ["alice joined"]
    assert len(visit.meeting.server.clients["alice"].conns) == 1


@story
async def test_a_page_whose_cable_is_cut_in_mid_sentence_misses_nothing(visit: Visit) -> None:
    alice = await visit.signed_in("alice")
    bob = await visit.signed_in("bob")
    visit.cable.cut_after(5_000)
    said = [f"line {number} " + "-" * 60 for number in range(120)]
    for text in said:
        visit.meeting.server.broadcast("said", {"who": "bob", "text": text, "to": "everybody"})
    for page in (alice, bob):
        await expect(page.locator("#state")).to_have_text("coming back \u2026")
    await alice.fill("#text", "can you hear me?")
    await alice.press("#text", "Enter")
    await alice.press("#a", "Enter")
    visit.cable.mend()
    for page in (alice, bob):
        await expect(page.locator("#messages")).to_contain_text("can you hear me?")
        heard = await page.locator("#messages li:not(.event)").all_inner_texts()
        assert heard == [
            *(f"Bob to everybody: {text}" for text in said),
            "Alice to everybody: can you hear me?",
        ]
        await expect(page.locator("#people li")).to_have_count(2)
    await expect(alice.locator("#sum")).to_have_text("= 8")
    assert visit.log == ["alice joined", "bob joined"]


@story
async def test_a_page_that_is_loaded_again_is_the_same_device_and_nobody_leaves(
    visit: Visit,
) -> None:
    window = await visit.window()
    page = await visit.signed_in("alice", window)
    other = await visit.signed_in("alice", window)
    (first, second) = visit.devices("alice")
    for _ in range(3):
        await page.reload()
        await sign_in(page, "alice")
        await expect(page.locator("#state")).to_have_text("connected")
        await expect(page.locator("#devices li")).to_have_count(2)
        assert set(visit.devices("alice")) == {first, second}
    await expect(other.locator("#devices li")).to_have_count(2)
    assert visit.log == ["alice joined"]


@story
async def test_a_tab_that_is_duplicated_is_another_device_also_when_it_is_loaded_again(
    visit: Visit,
) -> None:
    page = await visit.signed_in("alice")
    (original,) = visit.devices("alice")
    async with page.expect_popup() as opening:
        await page.evaluate("window.open(location.href)")  # which copies what the tab has stored
    copy = await opening.value
    stored = "Object.values(sessionStorage)"
    assert await copy.evaluate(stored) == await page.evaluate(stored) == [original]
    await sign_in(copy, "alice")
    await expect(copy.locator("#devices li")).to_have_count(2)
    await copy.reload()
    await sign_in(copy, "alice")
    for one in (page, copy):
        await expect(one.locator("#state")).to_have_text("connected")
        await expect(one.locator("#devices li")).to_have_count(2)
    mine, others = await page.evaluate(stored), await copy.evaluate(stored)
    assert mine == [original]
    assert set(visit.devices("alice")) == {*mine, *others}
    await expect(page.locator("#sent-away")).to_be_hidden()
    assert "connection lost" not in await page.locator("#messages").inner_text()
    assert visit.log == ["alice joined"]


@story
async def test_two_clients_of_one_page_are_two_devices_of_which_neither_replaces_the_other(
    visit: Visit,
) -> None:
    page = await visit.signed_in("alice")
    device = await page.evaluate(
        """async () => {
          const { WseClient } = await import("/wse.js");
          const { hmac } = await import("/hmac.js");
          const client = new WseClient(location.origin.replace("http", "ws") + "/ws");
          client.challenge((quest) => hmac("violet umbrella", quest.nonce));
          await client.connect("alice", { name: "a script" });
          return client.device;
        }"""
    )
    await expect(page.locator("#devices li")).to_have_count(2)
    await expect(page.locator("#state")).to_have_text("connected")
    assert device in visit.devices("alice")
    assert await page.evaluate("Object.values(sessionStorage).sort()") == sorted(
        visit.devices("alice")
    )


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


# -- phones, the dark, and eyes that see little ----------------------------------------------------


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

    await page.set_viewport_size({"width": 320, "height": 640})
    async with WseClient(visit.url.replace("http", "ws") + "ws") as client:
        client.challenge(hmac_solver(PASSPHRASES["carol"]))
        await client.connect("carol", {"name": "W" * 99})
        await expect(page.locator("#devices")).to_contain_text("W" * 40)
        await page.select_option("#to", label="all my devices")
        assert await page.evaluate(overflow) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_controls_stand_out_from_what_is_around_them(scheme: str) -> None:
    """As WCAG 2.2 asks for: 4.5 to 1 for text (1.4.3), 3 to 1 for controls (1.4.11)."""

    @story
    async def look(visit: Visit) -> None:
        page = await visit.tab(await visit.window(color_scheme=scheme))
        await sign_in(page, "alice", "a guess")
        await expect(page.get_by_role("alert")).to_be_visible()
        seen = await surroundings(page)
        await sign_in(page, "alice")
        other = await visit.signed_in("alice")
        await page.fill("#text", "Hello!")
        await page.click("#say button")
        await page.fill("#a", "five")
        await page.click("#add button")
        await expect(page.locator("#sum")).to_contain_text("wse.invalid-payload")
        await expect(page.locator("#devices button")).to_have_count(1)
        await page.mouse.move(0, 0)
        seen += await surroundings(page)
        await other.get_by_label("Drop device 1").click()
        await expect(page.locator("#sent-away")).to_be_visible()
        seen += await surroundings(page)
        pale = {
            f"{kind} of {what}: {colour} on {ground}"
            for kind, what, colour, ground in seen
            if contrast(colour, ground) < (4.5 if kind == "text" else 3)
        }
        assert not pale
        found = {(kind, what.lower()) for kind, what, *_ in seen}
        assert found >= {("text", "li.event"), ("text", "p#refused"), ("text", "output#sum")}
        assert found >= {("control", f"input#{id_}") for id_ in ("passphrase", "text", "a", "b")}
        assert found >= {("control", f"button#{id_}") for id_ in ("tear", "again", "ask")}
        assert found >= {("control", "select#to"), ("control", "button")}

    look()


async def surroundings(page: Page) -> list[tuple[str, str, str, str]]:
    """Each text with what is behind it, each edge of a control with what is around it.

    Without what is dimmed since it does nothing now: of that, nothing is asked.
    """
    seen: list[tuple[str, str, str, str]] = await page.evaluate(
        """() => {
          const CLEAR = "rgba(0, 0, 0, 0)";
          const style = (element) => getComputedStyle(element);
          const behind = (element) => {
            const ground = style(element).backgroundColor;
            const around = element.parentElement;
            return ground === CLEAR && around ? behind(around) : ground;
          };
          const seen = [];
          for (const element of document.body.querySelectorAll("*")) {
            if (!element.checkVisibility() || element.ariaDisabled === "true") continue;
            const { id, className, localName, childNodes } = element;
            const name = localName + (id ? `#${id}` : className && `.${className}`);
            const speaks = [...childNodes].some((one) => one.nodeType === 3 && one.data.trim());
            const control = element.matches("input, select, button");
            if (speaks || control) seen.push(["text", name, style(element).color, behind(element)]);
            if (!control) continue;
            const around = behind(element.parentElement);
            const edge = style(element).borderTopColor;
            const shown = edge === CLEAR ? style(element).backgroundColor : edge;
            seen.push(["control", name, shown, around]);
            if (shown !== behind(element)) seen.push(["control", name, shown, behind(element)]);
          }
          return seen;
        }"""
    )
    return seen


def contrast(*colours: str) -> float:
    """Of two colours (WCAG 2.2, "contrast ratio")."""
    darker, lighter = sorted(map(luminance, colours))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert parts, f"a colour that cannot be reckoned with: {colour}"
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(one) / 255 for one in parts.groups())
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


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
