"""Where ``benchmarks.engines`` keeps things outside the repository: environments, models, and what is made of them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.engines_contenders import ARTIFACTS, Contender, Setting
from benchmarks.program import Program, ProgramFailed, running
from benchmarks.random_model import SD15, Shape, make_model
from benchmarks.relay import relay
from benchmarks.report import Progress

_REQUIREMENTS = Path(__file__).parent / "contenders" / "requirements"
_PREPARE_SECONDS = 3600.0
# Packages to leave out of an environment. optimum-intel asks for torchvision and needs it for other models; a torch for
# processors alone cannot load the registry's, and transformers fails with one that cannot be loaded.
_REMOVED = {"optimum": ("torchvision",)}
# Nothing is to ask a network for anything.
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

    def run(self, turns: Sequence[tuple[Contender, Sequence[str]]], seconds: float) -> list[ProgramFailed | None]:
        """Run contenders' modules with arguments, by turns; see ``benchmarks.relay``."""
        return relay([self._contender(*turn) for turn in turns], seconds)

    def _contender(self, contender: Contender, arguments: Sequence[str]) -> AbstractContextManager[Program]:
        environment = {name: text.format(cache=self._folder) for name, text in contender.environment.items()}
        return self._program(contender.python, ["-m", contender.module, *arguments], environment)

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
                command = [part.format(**values) for part in artifact.command]
                with self._program(artifact.python, command, {}) as program:
                    program.wait(_PREPARE_SECONDS)
            except ProgramFailed as error:
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
            pip = [str(self._python(name)), "-m", "pip"]
            for command in (
                [sys.executable, "-m", "venv", str(folder)],
                [*pip, "install", "--quiet", "--requirement", str(wanted)],
                *([*pip, "uninstall", "--yes", package] for package in _REMOVED.get(name, ())),
            ):
                with running(command, {}) as program:
                    program.wait(_PREPARE_SECONDS)
        except ProgramFailed as error:
            self._failed[name] = f"{name} could not be installed: {error}"
            raise NotPrepared(self._failed[name]) from error
        shutil.copyfile(wanted, mark)

    def _python(self, name: str) -> Path:
        return self._environments / name / "bin" / "python" if name else Path(sys.executable)

    def _program(
        self, python: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> AbstractContextManager[Program]:
        threads = {} if self._shape is SD15 else _ONE_THREAD
        return running([str(self._python(python)), *arguments], {**_QUIET, **threads, **environment})
