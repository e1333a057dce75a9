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
def service():
    """Of its own: what is cancelled and cut by hand here teaches a cluster speeds that other tests ask for."""
    running = start_service()
    yield running
    running.stop()


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


def test_prefill_is_seen_rank_by_rank(service, browser, shots):
    open_page(browser, service)
    browser.wait_for(LOADED)
    body = {"prompt": LONG_TEXT * 8, "max_tokens": 1, "runahead": {"strategy": "even"}}
    asking = threading.Thread(target=lambda: service.post("/v1/completions", body))
    asking.start()
    browser.wait_for("document.querySelector('.link.busy') !== null")
    browser.evaluate("[...document.querySelectorAll('button.row')][0].click()")
    browser.wait_for("document.querySelectorAll('#report .rank').length === 2")
    assert text_of(browser, "#requests tbody .status").startswith("prefill ")
    browser.screenshot(shots / "prefill-1440.png")
    service.request("DELETE", "/v1/requests/" + service.get("/v1/requests").json["data"][0]["id"])
    asking.join(60)
    browser.wait_for("document.getElementById('why').textContent.includes('cancelled: the request was cancelled')")
    assert browser.complaints == []


def report_of(stages, ranks, predicted=0, attempts=1):
    workers = [{"rank": r, "worker": f"w{r}", "begin": 64 * r, "end": 64 * r + 64, "compute_seconds": compute,
                "kv_wait_seconds": wait, "kv_sent_bytes": 2e6, "kv_wire_seconds": wire}
               for r, (compute, wait, wire) in enumerate(ranks)]
    return {"ttft_seconds": sum(stages.values()), "stages": {"queue": 0, **stages}, "workers": workers, "attempts": attempts,
            "plan": {"predicted_ttft_seconds": predicted}}


@pytest.mark.parametrize("report,says", [
    (report_of({"prefill_compute": 1.5, "kv_wait": 0.5}, [(1.4, 0, 0), (1.5, 0.5, 0)], 1.6),
     "2.00 s to the first token of 128 tokens on 2 ranks, 1.50 s (75 %) of it computing 64 tokens on the last one, rank 1 (w1); "
     "25 % more than the predicted 1.60 s."),
    (report_of({"prefill_compute": 0.4, "kv_wait": 1.6}, [(1.9, 0, 0.1), (0.4, 1.6, 0)], 2),
     "2.00 s to the first token of 128 tokens on 2 ranks, 1.60 s (80 %) of it waiting for K/V of rank 0 (w0), which computed "
     "1.90 s, as predicted."),
    (report_of({"prefill_compute": 0.4, "kv_wait": 1.6}, [(0.3, 0, 1.7), (0.4, 1.6, 0)]),
     "2.00 s to the first token of 128 tokens on 2 ranks, 1.60 s (80 %) of it waiting for K/V of rank 0 (w0), which sent 2.0 MB "
     "over a slow link."),
    (report_of({"queue": 3, "prefill_compute": 1}, [(1, 0, 0)], 0, 2),
     "4.00 s to the first token of 128 tokens on 1 rank, 3.00 s (75 %) of it waiting behind other requests; it took 2 attempts, "
     "and the lost ones count as queue."),
])
def test_why_it_was_slow_in_one_sentence(service, browser, report, says):
    open_page(browser, service)
    browser.wait_for(LOADED)
    request = {"id": "x", "status": "succeeded", "prompt_tokens": 128, "runahead": report}
    assert browser.evaluate(f"whySentence({json.dumps(request)})").replace("\u00a0", " ") == says


def test_what_the_service_says_is_text_and_never_markup(service, browser):
    open_page(browser, service)
    browser.wait_for(LOADED)
    cluster = service.cluster()
    evil = "<img src=x onerror=alert(1)>"
    for worker in cluster["workers"]:
        worker.update(name=evil, device=evil, state=evil)
    browser.evaluate(f"showCluster({json.dumps(cluster)})")
    assert evil in text_of(browser, "#chain") and browser.evaluate("document.images.length") == 0
    assert no_overflow(browser)


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


@pytest.mark.parametrize("width,height", [(1440, 900), (390, 844)])
def test_jobs_are_rows_like_requests(service, browser, shots, width, height):
    """One that is computed, rank by rank, until it is cancelled by keyboard; one that has ended, with its report."""
    open_page(browser, service, width, height)
    browser.wait_for(LOADED)
    ended = service.post("/v1/jobs", {"prompt": LONG_TEXT, "max_tokens": 2, "runahead": {"strategy": "even"}}).json["id"]
    eventually(lambda: service.get(f"/v1/jobs/{ended}").json["status"] == "succeeded", 60, "the job's end")
    job = service.post("/v1/jobs", {"prompt": LONG_TEXT * 13, "max_tokens": 2, "cache_salt": f"{width}",
                                    "runahead": {"strategy": "even"}}).json["id"]
    row = f"document.querySelector('button.row[title={json.dumps(job)}]')"
    browser.wait_for(f"{row} !== null")
    assert browser.evaluate(f"{row}.textContent") == f"job {job[-6:]}"
    browser.evaluate(f"{row}.focus()")
    browser.press("Enter", ENTER, text="\r")
    browser.wait_for("document.querySelectorAll('#report .rank').length === 2")
    browser.wait_for(f"/^prefill [1-9]/.test({row}.closest('tr').querySelector('.status').innerText)")
    assert no_overflow(browser)
    assert browser.evaluate(f"{row}.closest('tr').querySelector('button.cancel').getBoundingClientRect().right <= innerWidth")
    browser.screenshot(shots / f"job-{width}.png")
    browser.evaluate(f"{row}.closest('tr').querySelector('button.cancel').focus()")
    browser.press("Enter", ENTER, text="\r")
    browser.wait_for(f"{row}.closest('tr').querySelector('.status').innerText.startsWith('cancelled')")
    assert service.get(f"/v1/jobs/{job}").json["status"] == "cancelled"
    browser.wait_for(f"document.activeElement === {row}")
    assert job in browser.evaluate("document.getElementById('said').textContent")
    browser.evaluate(f"document.querySelector('button.row[title={json.dumps(ended)}]').click()")
    browser.wait_for("document.getElementById('why').textContent.includes(' to the first token of ')")
    assert text_of(browser, "#why").startswith(ended)
    browser.wait_for("document.querySelectorAll('#report .rank').length === 3")
    assert browser.complaints == []
    eventually(service.at_rest, what="all pages free")


def test_a_response_that_was_waited_for_is_one_row_though_it_is_a_job_too(service, browser):
    made = service.post("/v1/responses", {"input": "Hello", "max_output_tokens": 2}).json["id"]
    assert any(job["id"] == made for job in service.get("/v1/jobs").json["data"])
    open_page(browser, service, 1440, 900)
    rows = f"document.querySelectorAll('button.row[title={json.dumps(made)}]')"
    browser.wait_for(f"{rows}.length > 0")
    assert browser.evaluate(f"{rows}.length") == 1
    assert browser.evaluate(f"{rows}[0].textContent") == f"response {made[-6:]}"


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
