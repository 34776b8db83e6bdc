"""The worker's end of the line: what waits is taken together where it may be."""

import json
import subprocess
import sys

PROGRAM = """
import time
from pathlib import Path
from scrd.serve.channel import Channel
from scrd.serve.worker import Worker

channel = Channel()
worker = Worker(channel, Path("."), "cpu", 4)
while not channel.resting.is_set():
    time.sleep(0.01)
for _ in range({count}):
    message = channel.next(worker._together)
    channel.tell(do=message["do"], jobs=[job["id"] for job in message.get("jobs", [])])
"""


def said(messages, count):
    line = "".join(json.dumps(message) + "\n" for message in [*messages, {"do": "rest"}])
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(count=count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        child.stdin.write(line)
        child.stdin.flush()
        answers = [json.loads(child.stdout.readline()) for _ in range(count)]
    return [(answer["do"], answer["jobs"]) for answer in answers]


def score(*jobs, models="a"):
    named = [{"id": name, "names": ["x.png"] * images} for name, images in jobs]
    return {"do": "score", "models": {"m": {"active": models}}, "jobs": named}


def test_jobs_that_wait_fill_one_batch_and_no_more():
    waiting = [score(("a", 1)), score(("b", 2), ("c", 1)), score(("d", 1)), score(("e", 9))]
    assert said(waiting, 3) == [
        ("score", ["a", "b", "c"]),
        ("score", ["d"]),
        ("score", ["e"]),
    ]


def test_what_was_asked_between_two_jobs_is_done_between_them():
    load = {"do": "load", "name": "n", "folder": "f"}
    waiting = [score(("a", 1)), load, score(("b", 1)), score(("c", 1), models="b")]
    assert said(waiting, 4) == [
        ("score", ["a"]),
        ("load", []),
        ("score", ["b"]),
        ("score", ["c"]),
    ]
