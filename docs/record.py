"""Records docs/terminal.svg and docs/search.svg: `make run` as a person sees it, and a search from a second terminal;
and docs/console.png and docs/payment.png, from the console in Chromium.

    .venv/bin/python docs/record.py

It runs the real commands in a pseudo-terminal; nothing in the pictures is made up. Takes about two minutes.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from local.machine import installed

ROOT = Path(__file__).parent.parent
RUN = "make run DURATION=60 TPS=50"
WIDTH, HEIGHT = 116, 50
_SEARCH_AFTER = 40.0
_CONTROL = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|([\r\n])")


class Screen:
    """A terminal's lines: as much of one as `rich` uses. Colours stay in the lines as escape sequences."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = 0

    def write(self, output: str) -> None:
        at = 0
        for control in _CONTROL.finditer(output):
            self.lines[self._row] += output[at : control.start()]
            at = control.end()
            argument, command, end = control.groups()
            if end == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            elif command == "A":
                self._row = max(0, self._row - int(argument or 1))
            elif command == "K":
                self.lines[self._row] = ""
            elif command == "m":
                self.lines[self._row] += control[0]
        self.lines[self._row] += output[at:]


class Terminal:
    """A command that runs in a pseudo-terminal."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self._process = subprocess.Popen(
            command.split(), stdin=side, stdout=side, stderr=side, cwd=ROOT, env=environment, start_new_session=True
        )
        os.close(side)
        self._output = bytearray()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._main, 65536):
                self._output += part
        except OSError:  # the other side was closed
            return

    def end(self) -> int:
        code = self._process.wait()
        self._reading.join(5)
        return code

    @property
    def lines(self) -> list[str]:
        screen = Screen()
        screen.write(self._output.decode(errors="ignore"))
        return screen.lines

    def shows(self, text: str) -> bool:
        return text in self._output.decode(errors="ignore")

    def await_text(self, text: str) -> None:
        while not self.shows(text):
            if self._process.poll() is not None:
                raise SystemExit(f"{self.command} ended with {self._process.returncode}:\n" + "\n".join(self.lines))
            time.sleep(0.2)


def run(command: str) -> Terminal:
    terminal = Terminal(command)
    terminal.end()
    return terminal


def save(terminals: list[Terminal], title: str, name: str) -> None:
    """Writes what the terminals show, one below the other, without the font that rich would load from the web."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for terminal in terminals:
        console.print(Text(f"$ {terminal.command}", style="bold"))
        console.print(Text.from_ansi("\n".join(terminal.lines).strip("\n")), overflow="fold")
        console.print()
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
    template = template.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    console.save_svg(str(ROOT / "docs" / f"{name}.svg"), title=title, code_format=template, unique_id=name)


def declined_payment() -> str:
    """A payment that was declined at the first try: its timeline is short and says why."""
    command = "./audit search --status DECLINED --limit 100 --json"
    found = subprocess.run(command.split(), cwd=ROOT, check=True, capture_output=True, text=True)
    payments = json.loads(found.stdout)["payments"]
    return str(next(payment["puid"] for payment in payments if payment["card"] and not payment["retries"]))


def screenshots(puid: str) -> None:
    """The console's first page, and a payment."""
    status = subprocess.run(
        ["./audit", "local", "status", "--json"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    address = json.loads(status.stdout)["processes"]["console"]["url"]
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=str(installed.chromium()), args=arguments)
        page = browser.new_page(viewport={"width": 1240, "height": 860})
        for name, path, shown in (("console", "/", ".tiles"), ("payment", f"/payments/{puid}", ".events")):
            page.goto(address + path)
            page.locator(shown).wait_for(timeout=60_000)
            page.screenshot(path=ROOT / "docs" / f"{name}.png")
        browser.close()


def main() -> None:
    service = Terminal(RUN)
    service.await_text("ready after")
    time.sleep(_SEARCH_AFTER)
    search = run("./audit search --state failed --limit 6")
    puid = declined_payment()
    timeline = run(f"./audit timeline {puid}")
    screenshots(puid)
    if service.end():
        raise SystemExit("\n".join(service.lines))
    save([service], "make run", "terminal")
    save([search, timeline], "a second terminal", "search")


if __name__ == "__main__":
    main()
