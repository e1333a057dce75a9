"""The built-in page in a real browser: wide and narrow, light and dark, by keyboard alone, without a key, without a service.

RUNAHEAD_SCREENSHOTS names a folder that keeps what the browser showed.
"""
import json
import os
import threading
from pathlib import Path

import pytest

from browser import NEEDS_CHROMIUM, Browser
from conftest import LONG_TEXT, eventually, start_service

pytestmark = NEEDS_CHROMIUM
CONTROL, ENTER, TAB, SPACE = 2, 13, 9, 32
SIZES = [(1440, 900, False), (1440, 900, True), (390, 844, False), (390, 844, True)]
LOADED = "document.querySelectorAll('#chain .node').length === 4"


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = Path(os.environ.get("RUNAHEAD_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def browser(tmp_path):
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


def open_page(browser, service, width=1440, height=900, dark=False, still=False):
    browser.show_as(width, height, dark, still)
    browser.open(service.url + "/")


def text_of(browser, selector):
    return browser.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def long_request(service, **fields):
    body = {"prompt": LONG_TEXT, "max_tokens": 8, "temperature": 0, "runahead": {"strategy": "even"}, **fields}
    answer = service.post("/v1/completions", body)
    assert answer.status == 200, answer.body
    return answer.json


def no_overflow(browser):
    return browser.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width,height,dark", SIZES)
def test_shows_the_cluster_and_where_the_time_went(service, browser, shots, width, height, dark):
    answer = long_request(service)
    open_page(browser, service, width, height, dark, still=True)
    browser.wait_for(LOADED)
    browser.wait_for("document.querySelectorAll('#report .rank').length === 3")
    names = browser.evaluate("[...document.querySelectorAll('#chain b')].map(node => node.textContent)")
    assert names[0] == "gateway" and sorted(names[1:]) == sorted(worker["name"] for worker in service.cluster()["workers"])
    assert text_of(browser, "#state").strip() == "ready"
    why = text_of(browser, "#why")
    assert why.startswith(answer["id"]) and " to the first token of " in why and why.endswith(".")
    stages = browser.evaluate("[...document.querySelectorAll('#report .time')][0].querySelectorAll('div').length")
    assert stages == 9 + 2, "nine stages, the first token and the prediction"
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == dark, background
    assert no_overflow(browser), "nothing reaches beyond the window"
    assert browser.evaluate("getComputedStyle(document.querySelector('.link i'), '::before').animationName") == "none"
    browser.screenshot(shots / f"page-{width}-{'dark' if dark else 'light'}.png")
    outside = [url for url in browser.requested if not url.startswith((service.url + "/", "data:", "about:"))]
    assert outside == [] and browser.complaints == []


def test_every_field_has_a_name_and_the_page_its_landmarks(service, browser):
    open_page(browser, service)
    browser.wait_for(LOADED)
    unnamed = browser.evaluate("""[...document.querySelectorAll('input, select, textarea, button')].filter(node =>
        !(node.labels?.length || node.textContent.trim() || node.getAttribute('aria-label'))).length""")
    assert unnamed == 0
    for selector in ["header", "main", "footer", "h1", "[role=status]", "[role=alert]", "[role=log][aria-live=polite]"]:
        assert browser.evaluate(f"document.querySelectorAll('{selector}').length") >= 1, selector
    assert browser.evaluate("[...document.querySelectorAll('main section')].every(s => "
                            "document.getElementById(s.getAttribute('aria-labelledby'))?.textContent)")


def test_playground_by_keyboard_alone(service, browser, shots):
    open_page(browser, service, 390, 844)
    browser.wait_for(LOADED)
    for _ in range(30):
        browser.press("Tab", TAB)
        if browser.evaluate("document.activeElement.id") == "prompt":
            break
    assert browser.evaluate("document.activeElement.id") == "prompt", "Tab leads to the prompt"
    browser.evaluate("document.activeElement.select()")
    browser.type("Count from one to ten.")
    browser.press("Enter", ENTER, CONTROL)
    browser.wait_for("document.getElementById('answer').textContent.length > 3")
    browser.wait_for("document.getElementById('play-state').textContent.includes('in the service')")
    state = text_of(browser, "#play-state")
    assert state.startswith("First token after ") and "tokens in" in state
    browser.wait_for("document.querySelectorAll('#report .rank').length >= 2")
    assert no_overflow(browser)
    browser.screenshot(shots / "played-390.png")
    assert browser.complaints == []


def test_stop_ends_a_stream(service, browser):
    open_page(browser, service)
    browser.wait_for(LOADED)
    fields = {"kind": "completions", "max-tokens": 1500, "temperature": 0, "prompt": "One two one two one two one two one two"}
    for name, value in fields.items():
        browser.evaluate(f"document.getElementById('{name}').value = {json.dumps(value)}")
    browser.evaluate("document.getElementById('send').focus()")
    browser.press("Enter", ENTER, text="\r")
    browser.wait_for("document.getElementById('play-state').textContent.startsWith('First token')")
    assert browser.evaluate("document.activeElement.id") == "stop", "the focus follows what can be done next"
    browser.press(" ", SPACE, text=" ")
    browser.wait_for("document.getElementById('play-state').textContent.startsWith('Stopped')")
    eventually(service.at_rest, what="all pages free")


def test_cancel_in_the_table(service, browser, shots):
    open_page(browser, service)
    browser.wait_for(LOADED)
    body = {"prompt": LONG_TEXT, "max_tokens": 1200, "ignore_eos": True}
    answers = []
    asking = threading.Thread(target=lambda: answers.append(service.post("/v1/completions", body)))
    asking.start()
    browser.wait_for("document.querySelector('button.cancel') !== null")
    browser.screenshot(shots / "in-work-1440.png")
    browser.evaluate("document.querySelector('button.cancel').focus()")
    browser.press("Enter", ENTER, text="\r")
    asking.join(60)
    assert answers[0].json["error"]["code"] == "cancelled"
    browser.wait_for("document.querySelector('#requests tbody .status').innerText.startsWith('cancelled')")
    assert browser.evaluate("document.activeElement.className") == "row", "the focus stays in the row"
    assert "cancelled" in browser.evaluate("document.getElementById('said').textContent")
    eventually(service.at_rest, what="all pages free")


def test_says_what_is_wrong_without_a_key_and_without_a_service(browser, shots, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("open-sesame\n")
    service = start_service("--api-keys", str(keys), workers=1)
    try:
        open_page(browser, service, 390, 844)
        browser.wait_for("document.getElementById('notice').innerText.includes('needs an API key')")
        assert no_overflow(browser)
        browser.screenshot(shots / "no-key-390.png")
        browser.evaluate("document.getElementById('key').focus()")
        browser.type("open-sesame")
        browser.press("Enter", ENTER, text="\r")
        browser.wait_for("document.querySelectorAll('#chain .node').length === 3")
        assert browser.evaluate("document.getElementById('notice').hidden")
        assert browser.evaluate("[localStorage.length, document.cookie, sessionStorage.getItem('runahead-key')]") == [
            0, "", "open-sesame"]
        assert "No request yet" in text_of(browser, "#requests-empty")
        browser.screenshot(shots / "empty-390.png")
    finally:
        service.stop()
    browser.wait_for("document.getElementById('notice').innerText.includes('does not answer')")
    browser.screenshot(shots / "gone-390.png")
