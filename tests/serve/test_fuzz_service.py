"""Three hundred damaged files: each is answered, and the rest goes on."""

import sys
from pathlib import Path

import numpy as np
import pytest
from serving import finished, picture, send

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def damaged(count):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from fuzz_seeds import make_seeds, mutate
    except ImportError as e:
        pytest.skip(f"no seeds to damage ({e.name})")
    finally:
        sys.path.remove(str(BENCHMARKS))
    seeds, rng = make_seeds(), np.random.default_rng(0)
    for i in range(count):
        kind, content = seeds[i % len(seeds)]
        yield f"{i}.{kind}", mutate(kind, content, rng)


def test_three_hundred_damaged_files(serve, exports):
    server = serve(f"disc={exports / 'first'}")
    worker = server.children("worker")
    files = list(damaged(300))
    with server.client() as client:
        ends = []
        for start in range(0, len(files), 10):
            sent = send(client, *files[start : start + 9])
            ends.append((sent, min(9, len(files) - start)))
            ends.append((send(client, files[start + 9]), 1))
        good = send(client, ("good.png", picture(0))).json()["id"]
        for sent, count in ends:
            assert sent.status_code == 202, sent.text
            job = finished(client, sent.json()["id"], 120)
            assert job["status"] == "done", job["reason"]
            # every file is there: a result, part of a series, or left out as no image
            counted = sum(row["images"] for row in job["results"])
            assert counted or job["notes"], (job, count)
            for row in job["results"]:
                assert (row["score"] is None) == (row["refusal"] is not None)
        assert finished(client, good)["results"][0]["score"] is not None
        for row in client.get("/v1/results", params={"limit": 40}).json()["results"]:
            for what in ("thumbnail.jpg", "overlay.png", "view.bin"):
                status = client.get(f"/v1/results/{row['id']}/{what}").status_code
                assert status in (200, 404, 422), (row, what, status)
        assert client.get("/readyz").status_code == 200
    assert server.children("worker") == worker  # it did not die of any
