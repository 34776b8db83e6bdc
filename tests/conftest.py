import importlib
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

# the suites share small machines, where threads that spin hold up the others
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

# a job that a shell starts in the background ignores Ctrl-C, of which some tests are
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# one thread makes float sums repeat exactly
torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder with the project's real data sets."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCRD_DATA", default))
    if not folder.is_dir():
        pytest.skip("the real data sets are not here: set SCRD_DATA")
    return folder


@pytest.fixture(scope="session")
def benchmark_module():
    """A program of ``benchmarks/`` as a module, by its name."""
    folder = Path(__file__).parents[1] / "benchmarks"

    def imported(name):
        if not folder.is_dir():
            pytest.skip("the benchmarks are not part of the source distribution")
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(folder))
            return importlib.import_module(name)

    return imported


@pytest.fixture(scope="module")
def chromium():
    """Debian's browser, driven by Playwright."""
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright: no page is tried")
    program = os.environ.get("SCRD_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: no page is tried")
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


TINY_TEACHER = """
import torch
from torch import nn


class Tiny(nn.Module):
    channels = (4, 6, 8)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        scales = zip(self.channels, (4, 8, 16))
        self.scales = nn.ModuleList(nn.Conv2d(3, c, s, s) for c, s in scales)
        for p in self.parameters():
            nn.init.normal_(p, generator=generator)

    def forward(self, image):
        return [scale(image - 0.5) for scale in self.scales]
"""


@pytest.fixture
def teacher_package(tmp_path, monkeypatch):
    """Installs a package with an entry point ``tiny``, after edits of its source (old, new)."""

    def install(*edits, version="1.0", package="tiny-teachers"):
        source = TINY_TEACHER
        for old, new in edits:
            assert old in source
            source = source.replace(old, new)
        site = tmp_path / package
        module = package.replace("-", "_")
        described = site / f"{module}.dist-info"
        described.mkdir(parents=True, exist_ok=True)
        (site / f"{module}.py").write_text(source)
        (described / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
        (described / "entry_points.txt").write_text(f"[scrd.teachers]\ntiny = {module}:Tiny\n")
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within one second
        monkeypatch.syspath_prepend(site)
        return site

    return install
