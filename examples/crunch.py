"""Count the words in a folder's text files, with progress: a Python function as a run.

    sparrow run -e python examples/crunch.py:crunch

It counts in the folder that it runs in (`--cwd FOLDER` chooses another), tells how far it is with `Progress`, and what
it found with `Message`. While it works it can be asked (`sparrow inject RUN top`) and told to end (`sparrow kill RUN`);
what it returns is the run's result. CRUNCH_PAUSE=0.2 in its environment makes it take that long for each file, so that
there is something to watch.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path

from sparrow_mp import Custom, Message, Progress, RunContext

SUFFIXES = {".c", ".h", ".md", ".py", ".rst", ".toml", ".txt"}
WORD = re.compile(r"[^\W\d_]{3,}")


def crunch(run: RunContext) -> dict[str, object]:
    """The engine: called with the run, in a process of its own."""
    pause = float(os.environ.get("CRUNCH_PAUSE", "0"))
    files = sorted(text_files(run.workspace))
    run.emit(Message(role="assistant", text=f"{len(files)} files to read in {run.workspace}"))
    words: Counter[str] = Counter()
    for done, path in enumerate(files):
        run.check()  # raises Interrupted once somebody asked this run to end
        for text in run.messages():  # what has been injected since; does not wait
            run.emit(Message(role="assistant", text=answer(text, words)))
        run.emit(Progress(done=done, total=len(files), unit="files", note=path.name))
        words.update(word.lower() for word in WORD.findall(path.read_text(encoding="utf-8", errors="replace")))
        time.sleep(pause)
    run.emit(Progress(done=len(files), total=len(files), unit="files"))
    run.emit(Custom(name="top", data=words.most_common(10)))
    run.emit(Message(role="assistant", text=answer("top", words)))
    return {"files": len(files), "words": words.total(), "different": len(words)}


def text_files(folder: Path) -> list[Path]:
    """The text files below a folder, hidden folders left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if Path(name).suffix in SUFFIXES]
    return found


def answer(question: str, words: Counter[str]) -> str:
    """`top` asks for the most frequent words; any other word asks how often that one occurred."""
    if question.strip() == "top":
        return "so far: " + ", ".join(f"{word} {count}" for word, count in words.most_common(5))
    return f"{question.strip()}: {words[question.strip().lower()]} times so far"
