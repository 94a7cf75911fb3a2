"""Where ``benchmarks.engines`` keeps things outside the repository: environments, models, and what is made of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.engines_contenders import ARTIFACTS, Contender, Setting
from benchmarks.random_model import SD15, Shape, make_model
from benchmarks.report import Progress
from benchmarks.servers import ROOT

_REQUIREMENTS = Path(__file__).parent / "contenders" / "requirements"
_PREPARE_SECONDS = 3600.0
# What an environment does better without. optimum-intel asks for torchvision and needs it for other models; a torch for
# processors alone cannot load the registry's, and transformers fails with one that cannot be loaded.
_REMOVED = {"optimum": ("torchvision",)}
_LAST_CHARACTERS = 600
# A caller's own limit on threads is not to limit what is measured; nothing is to ask a network for anything.
_NOT_INHERITED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")
_QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "0"}
# A trial on a tiny model gives no figures, and is to be over soon on a busy machine.
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class NotPrepared(RuntimeError):
    """A contender cannot run; the message says why."""


class Workshop:
    """Folders for one model, and programs that run in a contender's environment."""

    def __init__(self, folder: Path, shape: Shape, side: int, say: Progress) -> None:
        """``folder`` holds the environments, and a folder for each shape."""
        self._environments = folder / "environments"
        self._folder = folder / shape.name
        self._shape = shape
        self._side = side
        self._say = say
        self._failed: dict[str, str] = {}
        self._made: set[str] = set()

    @property
    def model(self) -> Path:
        """The model directory."""
        return self._folder / "model"

    def make_model(self) -> None:
        """Make what is missing of the model."""
        self._say("a model with random weights")
        make_model(self.model, self._shape)

    def artifact(self, name: str) -> Path | None:
        """Where an artifact is, or is going to be."""
        if not name:
            return None
        return self.model if ARTIFACTS[name].kept_by_model else self._folder / name

    def prepare(self, contender: Contender) -> list[Setting]:
        """Make what is missing of its environment and artifacts; returns the settings that it can run with.

        Raises ``NotPrepared`` if there are none.
        """
        self._environment(contender.python)
        ready: list[Setting] = []
        for setting in contender.settings:
            try:
                if setting.artifact:
                    self._make(setting.artifact)
                ready.append(setting)
            except NotPrepared as error:
                reason = error
        if not ready:
            raise reason
        return ready

    def run(self, contender: Contender, arguments: Sequence[str], seconds: float) -> None:
        """Run a contender's module. Raises ``NotPrepared`` with the last of what it said if it fails."""
        environment = {name: text.format(cache=self._folder) for name, text in contender.environment.items()}
        self._run(contender.python, ["-m", contender.module, *arguments], seconds, environment)

    def _make(self, name: str) -> None:
        artifact, folder = ARTIFACTS[name], self._folder / name
        if name in self._failed:
            raise NotPrepared(self._failed[name])
        if folder.exists() or name in self._made:
            return
        for needed in artifact.needs:
            self._make(needed)
        self._environment(artifact.python)
        self._say(f"making {name}")
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".making-") as made:
            target = Path(made) / name
            values = {"model": self.model, "side": self._side, "folder": target}
            values |= {other: self._folder / other for other in ARTIFACTS}
            try:
                self._run(artifact.python, [part.format(**values) for part in artifact.command], _PREPARE_SECONDS)
            except NotPrepared as error:
                self._failed[name] = f"{name} could not be made: {error}"
                raise NotPrepared(self._failed[name]) from error
            if not artifact.kept_by_model:
                shutil.move(target, folder)
            self._made.add(name)

    def _environment(self, name: str) -> None:
        """Make a virtual environment, unless it is there with the same requirements."""
        if not name:
            return
        wanted = _REQUIREMENTS / f"{name}.txt"
        folder = self._environments / name
        mark = folder / "installed.txt"
        if mark.exists() and mark.read_bytes() == wanted.read_bytes():
            return
        if name in self._failed:
            raise NotPrepared(self._failed[name])
        self._say(f"installing {name}")
        try:
            self._call([sys.executable, "-m", "venv", str(folder)], _PREPARE_SECONDS, {})
            pip = [str(self._python(name)), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)]
            self._call(pip, _PREPARE_SECONDS, {})
            for package in _REMOVED.get(name, ()):
                self._call([*pip[:3], "uninstall", "--yes", package], _PREPARE_SECONDS, {})
        except NotPrepared as error:
            self._failed[name] = f"{name} could not be installed: {error}"
            raise NotPrepared(self._failed[name]) from error
        shutil.copyfile(wanted, mark)

    def _python(self, name: str) -> Path:
        return self._environments / name / "bin" / "python" if name else Path(sys.executable)

    def _run(
        self, python: str, arguments: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
    ) -> None:
        threads = {} if self._shape is SD15 else _ONE_THREAD
        self._call([str(self._python(python)), *arguments], seconds, {**_QUIET, **threads, **(environment or {})})

    def _call(self, command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> None:
        """Run a program in a session of its own, so that all of it can be stopped."""
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise NotPrepared(f"not done after {seconds:.0f} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if code:
                said.seek(0)
                last = said.read().decode(errors="replace").strip()[-_LAST_CHARACTERS:]
                raise NotPrepared(f"ended with {code}: {last}")
