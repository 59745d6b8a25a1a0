"""Prints every event of every run, with nothing of sparrow's: a ZeroMQ SUB socket is all that it takes."""

import json, os, pathlib, zmq  # noqa: E401, I001  ten lines, for once

state = pathlib.Path(os.environ.get("SPARROW_STATE_DIR", pathlib.Path.home() / ".local/state/sparrow"))
socket = zmq.Context().socket(zmq.SUB)
socket.connect(json.loads((state / "supervisor.json").read_text())["events"])
socket.subscribe(b"")  # everything; b"<run id>" is one run, b"<run id>/RunFinished" its end
while True:
    topic, payload = socket.recv_multipart()
    for line in payload.splitlines():  # under load several events of one type come in one message
        print(topic.decode(), line.decode(), flush=True)
