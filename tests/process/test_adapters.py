import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support.records import Record, stamp
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


def now(_: int = 0) -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Client:
    """A connection that reads lines."""

    def __init__(self, address: str | tuple, ask: object = None, *, buffer: int = 0):
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(8)
        self.socket.connect(address)
        self.data = b""
        self.ended = False
        if ask is not None:
            self.send(json.dumps(ask).encode() + b"\n")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes | None:
        """The next line; None at the end."""
        while b"\n" not in self.data:
            if not self.more():
                return None
        line, _, self.data = self.data.partition(b"\n")
        return line

    def more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.data += data
        self.ended = not data
        return bool(data)

    def lines(self, count: int) -> list[bytes]:
        got = []
        for _ in range(count):
            line = self.line()
            if line is None:
                break
            got.append(line)
        return got

    def rest(self) -> bytes:
        """All that comes until the end."""
        while self.more():
            pass
        return self.data

    def quiet(self) -> bool:
        """Whether nothing has come."""
        self.socket.setblocking(False)
        try:
            self.data += self.socket.recv(1 << 16)
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(8)
        return not self.data

    def close(self) -> None:
        self.socket.close()


class House:
    """The adapters in a process of their own, and this process in the supervisor's place."""

    def __init__(self, folder: Path, context: zmq.Context):
        self.state = folder / "state"
        self.runtime = folder / "run"
        for each in (self.state, self.runtime, self.state / "transcripts", self.state / "runs"):
            each.mkdir(mode=0o700)
        self.unix = str(self.state / "sparrow.sock")
        self.context = context
        self.pub = context.socket(zmq.XPUB)  # a PUB that tells who subscribes
        self.pub.set(zmq.LINGER, 0)
        self.pub.bind(f"ipc://{self.runtime}/events.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []

    def start(
        self,
        *,
        tcp: str = "127.0.0.1:0",
        unix: str = "",
        stall_timeout: float = 600.0,
        subscribed: bool = True,
    ) -> dict:
        settings = {
            "state": str(self.state),
            "runtime": str(self.runtime),
            "config": str(self.state / "config.toml"),
            "tcp": tcp,
            "unix": unix or self.unix,
            "stall_timeout": stall_timeout,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sparrow_supervisor.adapters", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())
        self.attends = False
        if subscribed:
            self._subscribed(b"heads")
        return self.ready

    def attended(self) -> None:
        """Wait until everything is subscribed to, which a first client makes happen."""
        if not self.attends:
            self._subscribed(b"")
            self.attends = True

    def _subscribed(self, topic: bytes) -> None:
        told = b""
        while told != b"\x01" + topic:  # others are those of an earlier one, and their ends
            assert self.pub.poll(10_000)
            told = self.pub.recv()

    @property
    def tcp(self) -> tuple[str, int]:
        host, _, port = self.ready["tcp"].rpartition(":")
        return host.strip("[]"), int(port)

    def client(self, ask: object = None, *, tcp: bool = False, **options) -> Client:
        client = Client(self.tcp if tcp else self.unix, ask, **options)
        self.clients.append(client)
        return client

    def settled(self, **options) -> Client:
        """A client that is being served: whoever connected before is too."""
        client = self.client(**options)
        self.attended()
        probe = Record(self.state / "transcripts", clock=now)
        self.publish(probe, probe.add())
        while (line := client.line()) != probe.lines[0]:
            assert line is not None
        return client

    def run(self) -> Record:
        record = Record(self.state / "transcripts", clock=now)
        (self.state / "runs" / record.run).mkdir()
        return record

    def publish(self, record: Record, lines: bytes) -> None:
        """What was recorded is published, as the hub does it."""
        kind = json.loads(lines.splitlines()[-1])["type"]
        self.pub.send_multipart([f"{record.run}/{kind}".encode(), lines])

    def say(self, record: Record, kind: str = "Message", count: int = 1, **fields: Any) -> list[bytes]:
        lines = record.add(kind, count, **fields)
        self.publish(record, lines)
        return lines.splitlines()

    def heads(self, *records: Record) -> None:
        self.pub.send_multipart(
            [b"heads", json.dumps({"type": "Heads", "runs": {r.run: r.seq for r in records}}).encode()]
        )

    def end(self) -> None:
        for client in self.clients:
            client.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.stdout.close()
        self.pub.close()

    def memory(self) -> int:
        """What the process has of its own, in bytes."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024

    def descriptors(self) -> int:
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@pytest.fixture(scope="module")
def context():
    with zmq.Context() as context:
        yield context


@pytest.fixture
def house(context):
    folder = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))  # short: a socket's address is
    house = House(folder, context)
    try:
        yield house
    finally:
        house.end()
        shutil.rmtree(folder)


@pytest.mark.parametrize("tcp", [False, True])
def test_connect_and_read(house, tcp):
    record = house.run()
    record.add(count=3)
    house.start()
    client = house.client(tcp=tcp)
    other = house.client(tcp=not tcp)
    said = house.say(record, count=2)
    assert client.lines(2) == said
    said = house.say(record)
    assert client.line() == said[0]
    assert other.lines(3) == record.lines[3:]


def test_the_addresses_are_told(house):
    ready = house.start()
    assert ready["unix"] == house.unix
    assert ready["problems"] == []
    assert ready["tcp"].startswith("127.0.0.1:")
    assert not ready["tcp"].endswith(":0")


def test_ipv6(house):
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    ready = house.start(tcp="[::1]:0")
    if ready["tcp"] is None:
        pytest.skip(ready["problems"][0])
    client = house.client(tcp=True)
    record = house.run()
    assert house.say(record)[0] == client.line()


def test_a_client_with_a_socket_of_both_families(house):
    house.start()
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as both:
        try:
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            both.connect(("::ffff:127.0.0.1", house.tcp[1]))
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        both.settimeout(20)
        record = house.run()
        said = house.say(record)[0]
        assert both.recv(1 << 16) == said + b"\n"


def test_everything_after_the_connection_and_nothing_before(house):
    house.start()
    record = house.run()
    first = house.settled()
    for _ in range(30):
        before = house.say(record)
        assert first.lines(1) == before  # it is published, and seen
        client = house.client()
        after = house.say(record)  # at once: the adapters may not even have noticed the client
        assert first.lines(1) == after
        assert client.line() == after[0]
        client.close()


def test_an_unread_backlog_at_the_connection(house):
    house.start()
    record = house.run()
    house.settled()
    assert house.process is not None
    for _ in range(5):
        house.process.send_signal(signal.SIGSTOP)
        client = house.client()
        said = house.say(record, count=100)
        house.process.send_signal(signal.SIGCONT)
        assert client.lines(100) == said


def test_a_request_is_served_without_waiting(house):
    record = house.run()
    record.add(count=2)
    record.finish()
    house.start()
    begin = time.monotonic()
    for _ in range(40):
        client = house.client({"run": record.run[:13], "since": 0}, tcp=True)
        assert client.lines(3) == record.lines
    assert time.monotonic() - begin < 4  # forty times the moment that is waited for browsers


def test_an_ended_run_stays_open_and_a_half_closed_client_is_served_and_closed(house):
    record = house.run()
    record.add(count=2)
    record.finish()
    house.start()
    client = house.client({"run": record.run, "since": 0})
    assert client.lines(3) == record.lines
    other = house.client({"run": record.run, "since": 0}, tcp=True)
    other.socket.shutdown(socket.SHUT_WR)
    assert other.rest() == b"".join(line + b"\n" for line in record.lines)
    assert client.quiet()
    assert not client.ended


@pytest.mark.parametrize("tcp", [False, True])
def test_a_client_that_closed_its_side_at_once_is_served(house, tcp):
    house.start()
    client = house.client(tcp=tcp)
    client.socket.shutdown(socket.SHUT_WR)
    record = house.run()
    assert house.say(record)[0] == client.line()
    assert house.say(record)[0] == client.line()


def test_a_lost_message_is_made_good_by_the_heads(house):
    house.start()
    client = house.settled()
    record, silent = house.run(), house.run()
    said = house.say(record)
    assert client.lines(1) == said
    record.add(count=3)
    silent.add(count=2)
    house.heads(record, silent)
    got = client.lines(5)
    assert [line for line in got if record.run.encode() in line] == record.lines[1:]
    assert [line for line in got if silent.run.encode() in line] == silent.lines


def test_a_run_that_began_before_the_adapters_and_was_not_known_to_live(house):
    record = Record(house.state / "transcripts", clock=now)
    record.add(count=5)
    house.start()
    client = house.settled()
    assert client.lines(0) == []
    said = house.say(record, "RunFinished", outcome={"status": "lost"})
    assert client.lines(1) == said


def test_a_run_from_before_the_subscription_is_found(house):
    """Its messages came before the subscription was in force, or were lost: nobody will repeat them."""
    house.start(subscribed=False)
    client = house.client()
    record = house.run()
    record.add(count=2)
    assert client.lines(2) == record.lines


def test_a_first_client_gets_what_comes_and_not_what_nobody_heard_before(house):
    """While there is no client the events themselves are not subscribed to."""
    known, unknown = house.run(), house.run()
    known.add(ts=stamp(1))
    house.start()
    known.add(count=2, ts=stamp(2))
    unknown.add(count=3, ts=stamp(3))
    client = house.client()
    said = [known.add().rstrip(), unknown.add().rstrip()]
    assert sorted(client.lines(2)) == sorted(said)
    house.attended()
    said = house.say(known)
    assert client.lines(1) == said


def test_a_torn_line(house):
    house.start()
    client = house.settled()
    record = house.run()
    house.say(record)
    half = record.line()
    record.write(half[:30])
    house.heads(record)
    assert client.line() == record.lines[0]
    record.write(half[30:] + b"\n")
    house.publish(record, half)
    house.say(record)
    assert client.lines(2) == record.lines[1:]


def test_odd_messages_are_no_harm(house):
    house.start()
    client = house.settled()
    for message in (
        [b""],
        [b"x"],
        [b"heads", b"not JSON"],
        [b"heads", b'{"type":"Heads","runs":{"../../etc":7,"a":-1}}'],
        [b"\xff\xfe/Message", b"\xff"],
        [b"a", b"b", b"c"],
        [b"../../../etc/Message", b"{}"],
        [b"nobody/Message", b'{"type":"Message","run":"nobody","seq":1}'],
        [b"heads", b"[" * 100_000],
    ):
        house.pub.send_multipart(message)
    record = house.run()
    assert house.say(record)[0] == client.line()


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"P",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"POST /x HTTP/1.1\r\n\r\n{}\n",
    ],
)
def test_http_is_closed_without_a_byte(house, tcp, data):
    house.start()
    record = house.run()
    for late in (False, True):
        client = house.settled(tcp=tcp) if late else house.client(tcp=tcp)
        client.send(data)
        if not late:
            house.attended()
            house.say(record)
        assert client.rest() == b""


def test_nothing_is_sent_for_a_moment(house):
    house.start()
    record = house.run()
    first = house.settled()
    begin = time.monotonic()
    client = house.client(tcp=True)
    said = house.say(record)
    assert first.lines(1) == said
    assert client.lines(1) == said
    assert time.monotonic() - begin > 0.08


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    "data",
    [b"hello\n", b'{"run":"nobody"}\n', b"{" * 300_000, b"\0\0\0\0\n", b"\n", b'{"since":-1}\n', b"x" * 1_000_000],
)
def test_garbage_gets_one_error_and_the_end(house, tcp, data):
    house.start()
    client = house.client(tcp=tcp)
    try:
        client.send(data)
    except ConnectionError:
        pass
    lines = client.rest().splitlines()
    assert len(lines) == 1
    error = json.loads(lines[0])
    assert error["type"] == "Error"
    assert error["message"]


def test_garbage_from_a_client_that_does_not_read(house):
    house.start()
    record = house.run()
    client = house.client({"run": record.run, "since": 0}, buffer=4096)
    for _ in range(200):
        record.add(count=10, text="x" * 1000)
    house.publish(record, record.lines[-1])
    eventually(lambda: not client.quiet())
    client.send(b"bad\n")
    data = client.rest()
    assert json.loads(data.splitlines()[0])["seq"] == 1
    # The error comes at the end of a line, if it comes before the patience is at its end.
    assert [json.loads(line) for line in data.splitlines() if line.endswith(b"}")]


def test_random_bytes_stop_nobody(house):
    house.start()
    client = house.settled()
    noise = random.Random(7)
    for _ in range(300):
        stranger = house.client(tcp=noise.random() < 0.5)
        try:
            stranger.send(noise.randbytes(noise.choice((1, 10, 1000, 70_000))))
        except ConnectionError:
            pass
        stranger.close()
    record = house.run()
    assert house.say(record)[0] == client.line()


def test_types_and_times_over_the_wire(house):
    house.start()
    client = house.client({"types": ["RunFinished"]})
    record = house.run()
    house.say(record)
    assert house.say(record, "RunFinished", outcome={"status": "completed"})[0] == client.line()
    began = datetime.fromisoformat(json.loads(record.lines[0])["ts"])
    ended = house.client({"since": began.astimezone(timezone(timedelta(hours=5))).isoformat()})
    assert ended.lines(2) == record.lines
    resumed = house.client({"since": {record.run: 1}})
    assert resumed.lines(1) == record.lines[1:]


def test_a_port_in_use_is_told_and_the_unix_socket_is_served(house):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ready = house.start(tcp=f"127.0.0.1:{port}")
        assert ready["tcp"] is None
        (problem,) = ready["problems"]
        assert f"127.0.0.1:{port}" in problem
        assert "SPARROW_TCP" in problem
        record = house.run()
        client = house.client()
        assert house.say(record)[0] == client.line()


def test_no_tcp_where_none_is_wanted(house):
    ready = house.start(tcp="")
    assert ready["tcp"] is None
    assert ready["problems"] == []


def test_places_where_no_socket_can_be_are_told(house):
    (house.state / "file").touch()
    (house.state / "open").mkdir(mode=0o700)
    (house.state / "open").chmod(0o755)
    (house.state / "link").symlink_to(house.runtime)
    for place, words in (
        (house.state / ("x" * 108), "107"),
        (house.state / "file", "not a socket"),
        (house.state / "open" / "a.sock", "open to other users"),
        (house.state / "link" / "a.sock", "symbolic link"),
    ):
        ready = house.start(unix=str(place), subscribed=False)
        assert ready["unix"] is None
        assert words in ready["problems"][0]
        assert ready["tcp"] is not None
        assert house.process is not None
        assert house.process.stdin is not None
        assert house.process.stdout is not None
        house.process.stdin.close()
        assert house.process.wait(10) == 0
        house.process.stdout.close()


def test_the_unix_socket_is_its_owners_and_goes_with_a_clean_end(house):
    house.start()
    found = os.lstat(house.unix)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert sorted(os.listdir(house.state)) == ["runs", "sparrow.sock", "transcripts"]
    house.process.terminate()
    assert house.process.wait(10) == 0
    assert not os.path.lexists(house.unix)


def test_a_stale_unix_socket_is_replaced(house):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(house.unix)
    house.start()
    record = house.run()
    client = house.client()
    assert house.say(record)[0] == client.line()


def test_a_socket_that_is_another_ones_by_now_is_left_alone(house):
    house.start()
    os.unlink(house.unix)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(house.unix)
        house.process.terminate()
        assert house.process.wait(10) == 0
        assert os.path.lexists(house.unix)


def test_a_place_that_another_process_serves_is_left_alone(house):
    place = house.runtime / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place))
        other.listen()
        ready = house.start(unix=str(place), subscribed=False)
    assert ready["unix"] is None
    assert "another process serves" in ready["problems"][0]


def test_the_supervisors_death_is_the_end(house):
    house.start()
    house.settled()
    house.process.stdin.close()
    assert house.process.wait(5) == 0


def test_a_terminals_signals_are_not_for_the_adapters(house):
    house.start()
    client = house.settled()
    house.process.send_signal(signal.SIGINT)
    house.process.send_signal(signal.SIGHUP)
    record = house.run()
    assert house.say(record)[0] == client.line()


def test_the_last_words_are_delivered_before_a_clean_end(house):
    house.start()
    clients = [house.settled() for _ in range(5)]
    record = house.run()
    house.say(record)
    record.add(count=50)
    record.finish()
    house.process.terminate()
    for client in clients:
        got = client.rest().splitlines()
        assert [line for line in got if record.run.encode() in line] == record.lines
    assert house.process.wait(10) == 0


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("runuser"), reason="needs root and runuser, for a second user"
)
def test_another_user_is_refused(house):
    house.start()
    record = house.run()
    first = house.settled()
    port = house.tcp[1]
    # Once as it should be, once with a request and the side closed at once, which leaves the peer's socket nobody's.
    for ask in ("", '{"since":"2026-01-01T00:00:00Z"}'):
        script = (
            f"import socket,sys; s=socket.create_connection(('127.0.0.1',{port})); s.settimeout(10);"
            f" s.sendall({ask!r}.encode()); d=b''\n"
            "try:\n"
            "    while b:=s.recv(65536): d+=b\n"
            "except OSError: pass\n"
            "sys.stdout.write(d.decode())"
        )
        with subprocess.Popen(
            ["runuser", "-u", "nobody", "--", "/usr/bin/env", "python3", "-c", script], stdout=subprocess.PIPE, cwd="/"
        ) as stranger:
            house.say(record)
            assert stranger.stdout is not None
            lines = stranger.stdout.read().splitlines()
        assert stranger.returncode == 0
        assert len(lines) == 1
        assert json.loads(lines[0])["type"] == "Error"
    hasty = (
        f"import socket\nfor n in range(300):\n s=socket.create_connection(('127.0.0.1',{port}));"
        ' s.sendall(b\'{"since":"2026-01-01T00:00:00Z"}\\n\'); s.close()'
    )
    subprocess.run(["runuser", "-u", "nobody", "--", "/usr/bin/env", "python3", "-c", hasty], check=True, cwd="/")
    locked = subprocess.run(
        ["runuser", "-u", "nobody", "--", "/usr/bin/env", "python3", "-c",
         f"import socket; socket.socket(socket.AF_UNIX).connect({house.unix!r})"],
        capture_output=True, check=False, cwd="/",
    )  # fmt: skip
    assert b"PermissionError" in locked.stderr
    for line in record.lines:
        assert first.line() == line


def test_more_clients_than_there_may_be(house):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft < 1200:
        if 0 <= hard < 1200:
            pytest.skip("too few descriptors here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    house.start()
    clients = [house.client() for _ in range(1000)]
    one_too_many = house.client()
    assert "too many clients" in json.loads(one_too_many.rest())["message"]
    record = house.run()
    said = house.say(record)[0]
    for client in clients:
        assert client.line() == said
        client.close()
    eventually(house.settled)


def test_no_descriptors_left_is_no_spin_and_no_end(house):
    house.start()
    pid = house.process.pid
    most = house.descriptors() + 30
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    clients = [house.client() for _ in range(60)]

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    eventually(lambda: house.descriptors() >= most - 1)
    before = ticks()
    time.sleep(1.0)  # how much it works when it can do nothing is what is measured
    assert ticks() - before < 0.2 * os.sysconf("SC_CLK_TCK")
    for client in clients[:50]:
        client.close()
    late = house.client()
    record = house.run()

    def heard() -> bool:
        house.say(record)  # until it is accepted nothing is for it
        return not late.quiet()

    eventually(heard)


def test_a_client_that_takes_nothing_is_closed_at_last(house):
    house.start(stall_timeout=4.0)  # longer than a busy machine keeps the slow one waiting for its turn
    record = house.run()
    stalled = house.client({"run": record.run, "since": 0}, buffer=4096)
    slow = house.client({"run": record.run, "since": 0}, buffer=4096)
    for _ in range(40):
        record.add(count=100, text="x" * 1000)
    house.publish(record, record.lines[-1])
    closed = select.poll()
    closed.register(stalled.socket, select.POLLRDHUP)
    while not closed.poll(200):
        assert slow.more()
    data = stalled.rest()
    assert 0 < len(data) < 4_000_000
    assert slow.more()


def test_nothing_is_left_of_clients_that_went(house):
    house.start()
    record = house.run()
    client = house.settled()
    before = house.descriptors()
    for n in range(100):
        asks: list = [None, {"run": record.run[:9]}, {"since": "2026-01-01T00:00:00Z"}, {"types": []}, {"run": "x"}]
        other = house.client(asks[n % 5], tcp=n % 2 == 0)
        if n % 3:
            other.socket.shutdown(socket.SHUT_WR)
        house.say(record)
        other.close()
    assert client.lines(100) == record.lines
    house.say(record)
    eventually(lambda: house.descriptors() <= before)


class Follower(threading.Thread):
    """Reads until every run has ended, at its own pace; resumes where it was if the connection was cut on purpose."""

    def __init__(self, house: House, runs: int, *, tcp: bool, pause: float = 0.0, cut: int = 0):
        super().__init__(daemon=True)
        self.house = house
        self.runs = runs
        self.tcp = tcp
        self.pause = pause
        self.cut = cut
        self.got: dict[str, list[int]] = {}
        self.trouble = ""
        self.client = house.client(tcp=tcp)

    def run(self) -> None:
        chance = random.Random(self.cut)
        ended = 0
        left = chance.randrange(1, self.cut) if self.cut else 0
        while ended < self.runs:
            if self.cut and left <= 0:
                self.client.close()
                self.client = self.house.client(
                    {"since": {run: seqs[-1] for run, seqs in self.got.items()}}, tcp=self.tcp
                )
                left = chance.randrange(1, self.cut)
            line = self.client.line()
            if line is None:
                self.trouble = "closed"
                return
            event = json.loads(line)
            if event["type"] == "Error":
                self.trouble = event["message"]
                return
            self.got.setdefault(event["run"], []).append(event["seq"])
            ended += event["type"] == "RunFinished"
            left -= 1
            if self.pause:
                time.sleep(self.pause)


def test_nobody_has_a_hole_or_a_repeat(house):
    """A writer at speed; clients that keep up, one that is slow, one that stalls, some that come and go."""
    house.start()
    count, total, batch = 5, 2000, 50
    followers = [Follower(house, count, tcp=n % 2 == 0) for n in range(8)]
    followers += [Follower(house, count, tcp=n % 2 == 0, cut=3000 + n) for n in range(4)]
    followers.append(Follower(house, count, tcp=False, pause=0.0001))
    stalled = [house.client(tcp=n % 2 == 0, buffer=4096) for n in range(4)]
    for follower in followers:
        follower.start()
    before = house.memory()
    records = [house.run() for _ in range(count)]
    chance = random.Random(1)
    while records:
        record = chance.choice(records)
        if record.seq >= total:
            house.publish(record, record.finish())
            records.remove(record)
            continue
        lines = record.add("Message", count=chance.randrange(1, batch), text="x" * 100)
        if chance.random() < 0.8:  # a subscriber loses messages
            house.publish(record, lines)
        if chance.random() < 0.01:
            record.seal()
        if chance.random() < 0.02:
            time.sleep(0.01)
    peak = house.memory() - before
    for follower in followers:
        follower.join(50)
        assert not follower.is_alive()
        assert not follower.trouble
        assert len(follower.got) == count
        for seqs in follower.got.values():
            assert seqs == list(range(1, len(seqs) + 1))
            assert len(seqs) > total
    for client in stalled:
        got: dict[str, list[int]] = {}
        ended = 0
        while ended < count:
            event = json.loads(client.line())
            got.setdefault(event["run"], []).append(event["seq"])
            ended += event["type"] == "RunFinished"
        for seqs in got.values():
            assert seqs == list(range(1, len(seqs) + 1))
    assert peak < 24 << 20
