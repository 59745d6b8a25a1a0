"""A web page in a real browser reads nothing from the TCP port and controls nothing through it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)"),
]

PAGE = """<!doctype html><title>hostile</title><body><script>
const told = {};
const asks = ['{"since":0}', '{"run":"RUN","since":0}\\n', '\\n{"since":"2000-01-01T00:00:00Z"}\\n'];
const within = (name, promise) => Promise.race([promise, new Promise(r => setTimeout(() => r("nothing"), 10000))])
  .then(r => told[name] = String(r), e => told[name] = "failed");
const text = response => response.text().then(t => "read " + response.type + " [" + t + "]");
(async () => {
  const all = [];
  for (const host of ["127.0.0.1", "localhost", "rebound.example"]) {
    const url = "http://" + host + ":PORT/";
    all.push(within(host + " get", fetch(url).then(text)));
    all.push(within(host + " opaque", fetch(url, {mode: "no-cors"}).then(text)));
    asks.forEach((body, n) => {
      const post = {method: "POST", body, headers: {"Content-Type": "text/plain"}};
      all.push(within(host + " post " + n, fetch(url, {...post, mode: "no-cors"}).then(text)));
      all.push(within(host + " cors post " + n, fetch(url, post).then(text)));
      all.push(within(host + " beacon " + n, Promise.resolve(navigator.sendBeacon(url, body) && "nothing")));
    });
    all.push(within(host + " socket", new Promise((yes, no) => {
      const socket = new WebSocket("ws://" + host + ":PORT/");
      socket.onopen = () => { socket.send(asks[0]); }; socket.onmessage = e => yes("read " + e.data); socket.onerror = no;
    })));
    all.push(within(host + " events", new Promise((yes, no) => {
      const source = new EventSource(url); source.onmessage = e => yes("read " + e.data); source.onerror = no;
    })));
    all.push(within(host + " image", new Promise((yes, no) => {
      const image = new Image(); image.onload = () => yes("read"); image.onerror = no; image.src = url;
    })));
    all.push(within(host + " script", new Promise((yes, no) => {
      const script = document.createElement("script"); script.onload = () => yes("read"); script.onerror = no;
      script.src = url; document.body.append(script);
    })));
    all.push(within(host + " form", new Promise(yes => {
      const frame = document.createElement("iframe"); frame.name = host; document.body.append(frame);
      const form = document.createElement("form"); form.method = "POST"; form.enctype = "text/plain"; form.action = url;
      form.target = host; form.innerHTML = "<input name='{\\"since\\":0,\\"types\\":[\\"' value='\\"]}'>";
      document.body.append(form);
      frame.onload = () => { try { yes("read " + frame.contentDocument.body.innerText); } catch (e) { yes("nothing"); } };
      form.submit();
    })));
    all.push(within(host + " tls", fetch("https://" + host + ":PORT/", {mode: "no-cors"}).then(text)));
  }
  await Promise.all(all);
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
</script>"""


class Relay:
    """Between the browser and the port, to see what is sent to a browser even where a page is not shown it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self._listener.getsockname()[1]
        self.spoken: list[tuple[bytes, bytes]] = []
        """Of each connection over which the browser said anything: that, and what it was sent."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        said, sent = bytearray(), bytearray()
        with client, socket.create_connection(self._target) as server:

            def back() -> None:
                self._pump(server, client, sent)

            thread = threading.Thread(target=back, daemon=True)
            thread.start()
            self._pump(client, server, said)
            thread.join()
        if said:
            self.spoken.append((bytes(said), bytes(sent)))

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        try:
            while data := source.recv(65536):
                seen += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended already

    def close(self) -> None:
        self._listener.close()


def visit(page: str, folder: Path) -> dict[str, str]:
    """What the page tells that it came to, in a browser that takes `rebound.example` for this machine."""
    told: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    assert CHROMIUM is not None
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, "--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
                   f"--user-data-dir={folder}", "--host-resolver-rules=MAP rebound.example 127.0.0.1",
                   *(["--no-sandbox"] if os.geteuid() == 0 else []),
                   f"http://rebound.example:{server.server_port}/"]  # fmt: skip
        env = {**os.environ, "HOME": str(folder), "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
        browser = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            eventually(lambda: told, 45, "what the page tells")
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    return told[0]


def test_a_page_reads_nothing_and_controls_nothing(house: House, tmp_path: Path):
    run = house.detach("--", "sh", "-c", "echo secret; cat")
    house.says(run, "secret")
    host, port = house.status()["tcp"].split(":")
    relay = Relay(host, int(port))
    told = visit(PAGE.replace("PORT", str(relay.port)).replace("RUN", run), tmp_path / "browser")
    relay.close()
    assert len(told) > 40
    assert {outcome for outcome in told.values() if "read" in outcome} == set(), told
    eventually(lambda: len(relay.spoken) > 20, what="what the browser said at the port")
    assert any(b"POST" in said for said, _ in relay.spoken)
    assert {sent for _, sent in relay.spoken} == {b""}
    house.sparrow("inject", run, "still there").ok()
    house.says(run, "still there")
    assert [event["type"] for event in house.events(run)] == ["RunStarted", "Output", "Message", "Output"]
