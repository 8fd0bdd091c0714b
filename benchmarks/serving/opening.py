"""Measure how fast `report --serve` opens with many runs, its memory, and its idle time of the CPU.

    python -m benchmarks.serving.opening runs/tiny/... --runs 100 --steps 300

A folder of copies of the run is made (`folders`) and served by the command in a process of its own.
Chromium without a window opens the page: first right after the server's start, then again. Times
are from the start of the navigation to the frame in which all rows are drawn (`performance.now`).
Limits: needs Chromium with its driver; other work on the machine lengthens all times.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import about
from benchmarks.serving import folders

RESULT = Path(__file__).parent / "results" / "opening.json"
DRAWN = """
const [number, done] = arguments;
const look = () => document.querySelectorAll("#runs > tr").length >= number
  ? requestAnimationFrame(() => done(performance.now())) : requestAnimationFrame(look);
look();
"""
READ = "return document.querySelector('main').dataset.pending === '0'"
Measured = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a complete run")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--times", type=int, default=5, help="times that the page is opened")
    parser.add_argument("--idle", type=float, default=30.0, metavar="SECONDS")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders.make(args.run, Path(place), args.runs, args.steps)
        measured = measure(Path(place), args.runs, args.times, args.idle)
    result = {"num_runs": args.runs, "num_steps": args.steps} | measured
    about.write(RESULT, result, "selenium")
    for name, value in result.items():
        print(f"{name:32} {value}")


def measure(place: Path, num_runs: int, times: int, idle_s: float) -> Measured:
    """Serve a folder, and open it once cold and `times` again."""
    browser = chromium()  # started first: it does not count
    command = [sys.executable, "-m", "r1recipes", "report", "--serve", str(place), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address, "the server has printed its address"
        began = time.monotonic()
        answered = answer_s(address[0])
        first = opened_s(browser, address[0], num_runs)
        while not browser.execute_script(READ):
            time.sleep(0.05)
        read = time.monotonic() - began
        peak = resident_bytes(server.pid)
        again = [opened_s(browser, address[0], num_runs) for _ in range(times)]
        watched = cpu_share(server.pid, idle_s)
        browser.quit()
        idle = cpu_share(server.pid, idle_s)
    finally:
        server.kill()
    return {
        "first_response_s": round(answered, 3),
        "first_open_s": round(first, 3),
        "all_read_s": round(read, 3),
        "open_again_s": [round(seconds, 3) for seconds in again],
        "open_again_median_s": round(statistics.median(again), 3),
        "resident_bytes": peak,
        "cpu_share_with_the_page_open": round(watched, 4),
        "cpu_share_without_a_page": round(idle, 4),
    }


def chromium() -> Any:
    """A browser without a window, which has opened an empty page."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.add_argument("--headless=new")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options, service)
    browser.set_page_load_timeout(60)
    browser.set_script_timeout(60)
    browser.get("data:text/html,<p>empty</p>")
    return browser


def answer_s(address: str) -> float:
    """Seconds until a request is answered in full."""
    began = time.monotonic()
    with urllib.request.urlopen(address) as response:
        response.read()
    return time.monotonic() - began


def opened_s(browser: Any, address: str, num_runs: int) -> float:
    """Seconds from the start of a navigation until the rows of all runs are drawn."""
    browser.get("data:text/html,<p>empty</p>")
    browser.get(address)
    milliseconds: float = browser.execute_async_script(DRAWN, num_runs)
    return milliseconds / 1000


def resident_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return 1024 * int(match[1])


def cpu_share(pid: int, seconds: float) -> float:
    """The share of one core that a process uses."""
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
