"""Feed broken images to the readers and count what comes of it.

    python benchmarks/fuzz_readers.py fuzz --count 3000
    python benchmarks/fuzz_readers.py table FOLDER ...

`fuzz` draws small valid images of every format, damages copies of them and reads each in another
process: 20 seconds and 2 GiB of resident memory a file, or it counts as a failure, as does every
exception but `ImageError` and every crash. Mutant `i` of a seed is the same on every machine and
for every count; those that fail are kept with `--keep DIR`. Exit code 1 if any fails.

`table` reads all files below folders and prints what became of each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fuzz_seeds import make_seeds, mutate

SECONDS = 20
GIB = 1 << 30
MOST_RESIDENT = 2 * GIB
MOST_RESERVED = 6 * GIB  # keeps a failure from taking the machine along
OUTCOMES = ("read", "refused", "exception", "crash", "hang", "memory")
FAILURES = OUTCOMES[2:]


def read_all(path: Path) -> list[np.ndarray]:
    """Read the header, and the first and the last image of a file.

    Raises:
        ImageError: Whatever is wrong with it.
    """
    from scrd.data.reading import file_format, read_image, read_info
    from scrd.data.source import Source

    kind, count = file_format(path), 1
    if kind == "DICOM":
        from scrd.data.formats.dicom import read_header

        count = read_header(path).frames
    elif kind == "NIfTI":
        from scrd.data.formats.nifti import read_nifti_info

        count = read_nifti_info(path).slices
    read_info(path)
    return [read_image(Source(path, frame)) for frame in sorted({0, count - 1})]


def serve() -> None:
    """Read the files whose paths come in, one a line, and answer with a line of JSON for each."""
    from scrd.errors import ImageError

    resource.setrlimit(resource.RLIMIT_DATA, (MOST_RESERVED, MOST_RESERVED))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a C library prints is no answer
    for line in sys.stdin:
        reason = ""
        try:
            read_all(Path(line.rstrip("\n")))
            outcome = "read"
        except ImageError as error:
            outcome, reason = "refused", error.reason
        except BaseException as error:
            outcome, reason = "exception", repr(error)
        resident = _peak()
        print(json.dumps([outcome, reason, resident]), file=answers, flush=True)


def _peak() -> int:
    """Most bytes held since the last call, where the system can tell (Linux), else ever."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with contextlib.suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024
        Path("/proc/self/clear_refs").write_text("5")
    return peak


class Worker:
    """A process that reads files and is replaced when one of them ends it."""

    def __init__(self, command: Sequence[str] = (sys.executable, __file__, "serve")) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: Path) -> tuple[str, str, int]:
        """Outcome, reason and most bytes that the process held meanwhile."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{path}\n".encode())
        process.stdin.flush()
        if not select.select([process.stdout], [], [], SECONDS)[0]:
            self.stop()
            return "hang", f"no answer in {SECONDS} s", 0
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.stop()
            return "crash", f"exit code {code}", 0
        outcome, reason, resident = json.loads(line)
        if resident > MOST_RESIDENT:
            self.stop()
            return "memory", f"{resident / GIB:.2f} GiB, {outcome} {reason}", resident
        return outcome, reason, resident

    def stop(self) -> None:
        """End the process; the next file starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@dataclass
class Counts:
    """What became of the mutants.

    Attributes:
        outcomes: (format, outcome) → mutants.
        resident: format → most bytes that a process held while it read one of them.
        failures: number, format, outcome and reason of those that failed.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    resident: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[int, str, str, str]] = field(default_factory=list)

    def table(self) -> str:
        """Markdown, one line a format."""
        lines = [f"| format | {' | '.join(OUTCOMES)} | peak MiB |", "|---" * 8 + "|"]
        for kind in [*sorted(self.resident), "all"]:
            numbers = [
                sum(n for (k, o), n in self.outcomes.items() if o == outcome and kind in (k, "all"))
                for outcome in OUTCOMES
            ]
            peak = max(self.resident.values()) if kind == "all" else self.resident[kind]
            lines.append(f"| {kind} | {' | '.join(map(str, numbers))} | {peak >> 20} |")
        return "\n".join(lines)


def fuzz(count: int, seed: int, *, workers: int = 2, keep: Path | None = None) -> Counts:
    """Read damaged files; see the head of this file."""
    seeds = make_seeds()
    counts, lock, numbers = Counts(), threading.Lock(), iter(range(count))

    def work(folder: Path, worker: Worker) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            kind, content = seeds[number % len(seeds)]
            mutant = mutate(kind, content, np.random.default_rng([seed, number]))
            path = folder / "mutant"
            path.write_bytes(mutant)
            outcome, reason, resident = worker.read(path)
            with lock:
                counts.outcomes[kind, outcome] += 1
                counts.resident[kind] = max(counts.resident.get(kind, 0), resident)
                if outcome in FAILURES:
                    counts.failures.append((number, kind, outcome, reason))
            if outcome in FAILURES and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}-{outcome}").write_bytes(mutant)

    with contextlib.ExitStack() as stack:
        threads = []
        for _ in range(workers):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            worker = Worker()
            stack.callback(worker.stop)
            threads.append(threading.Thread(target=work, args=(folder, worker)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return counts


def table(folders: list[Path]) -> str:
    """What became of each file, as Markdown."""
    from scrd.errors import ImageError

    lines, totals = ["| file | | |", "|---|---|---|"], Counter[str]()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            try:
                pixels = read_all(path)[0]
                outcome, detail = "read", f"{'x'.join(map(str, pixels.shape))} {pixels.dtype}"
            except ImageError as error:
                outcome, detail = "refused", error.reason
            totals[outcome] += 1
            lines.append(f"| {path.relative_to(folder).as_posix()} | {outcome} | {detail} |")
    return "\n".join([*lines, "", f"{totals['read']} read, {totals['refused']} refused"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fuzzing = commands.add_parser("fuzz")
    fuzzing.add_argument("--count", type=int, default=3000)
    fuzzing.add_argument("--seed", type=int, default=0)
    fuzzing.add_argument("--workers", type=int, default=2)
    fuzzing.add_argument("--keep", type=Path)
    commands.add_parser("table").add_argument("folders", type=Path, nargs="+")
    commands.add_parser("serve")
    options = parser.parse_args()
    if options.command == "serve":
        serve()
        return 0
    if options.command == "table":
        print(table(options.folders))
        return 0
    counts = fuzz(options.count, options.seed, workers=options.workers, keep=options.keep)
    print(counts.table())
    for number, kind, outcome, reason in sorted(counts.failures):
        print(f"mutant {number} ({kind}): {outcome}: {reason}")
    return 1 if counts.failures else 0


if __name__ == "__main__":
    sys.exit(main())
