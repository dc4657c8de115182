"""What is known of a slide during a run: its result, its files, and which of its stages are done."""

from __future__ import annotations

import errno
import re
import shutil
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...whole_files import PARTIAL, write_atomically
from .cohort_plan import SlideTask
from .result import SlideResult, write_result
from .stage_cache import StageCache

__all__ = ["SlideRecord"]

#: Errors of a file system after which no further slide could be written.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class SlideRecord:
    """Result and stage cache of one slide.

    Args:
        task: the slide.
        out: folder of results.

    Attributes:
        result: what will be written, by now.
        cache: which stages are done, from what.
    """

    def __init__(self, task: SlideTask, out: Path) -> None:
        self.task, self.out = task, out
        self.result = SlideResult(id=task.id, path=task.path)
        self.cache = StageCache(out / "stages" / f"{task.id}.json", out)

    def file(self, folder: str, suffix: str) -> Path:
        """OUT/folder/ID with a suffix."""
        return self.out / folder / f"{self.task.id}{suffix}"

    def update(self, **fields: Any) -> None:
        """Replace fields of the result."""
        self.result = replace(self.result, **fields)

    def add_files(self, **files: Path | str) -> None:
        """Add files to the result, by paths or by their names in the folder of results."""
        names = {
            name: file if isinstance(file, str) else file.relative_to(self.out).as_posix()
            for name, file in files.items()
        }
        self.update(files={**self.result.files, **names})

    def warn(self, text: str) -> None:
        """Add a warning to the result."""
        self.update(warnings=(*self.result.warnings, text))

    def was_attempted(self, run_id: str) -> bool:
        """Whether a run has worked on the slide, with whatever result."""
        return self.cache.done("run", run_id)

    def remove_partial_files(self) -> None:
        """Remove what a killed run left unfinished; only for a process that holds the lock of the slide."""
        kinds = ("", *(f"_{name}" for name in ("absolute", "percentile", "preview")))
        names = "|".join(re.escape(f".{self.task.id}{kind}") for kind in kinds)
        pattern = re.compile(rf"({names})(\.\w+)?\.[0-9a-f]+{re.escape(PARTIAL)}(\.\w+)?")
        for folder in [*self.out.glob("*"), *self.out.glob("features_*/*")]:
            for path in folder.glob(f".*{PARTIAL}*"):
                if pattern.fullmatch(path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def fail(self, error: Exception) -> None:
        """Record why the slide failed; the traceback of an unexpected error goes to OUT/errors/ID.txt.

        Raises:
            OSError: nothing more can be written.
        """
        if isinstance(error, OSError) and error.errno in _FATAL:
            raise error
        reason = str(error) or type(error).__name__
        if not isinstance(error, ValueError | OSError | ModuleNotFoundError):
            file = self.file("errors", ".txt")
            write_atomically(file, "".join(traceback.format_exception(error)))
            reason = f"{type(error).__name__}: {reason}; see {file.relative_to(self.out)}"
        self.update(status="failed", reason=reason)

    def save(self, run_id: str) -> None:
        """Write the result, and that this run has worked on the slide."""
        self.update(seconds={name: seconds for name, seconds in self.cache.seconds().items() if seconds})
        write_result(self.out, self.result)
        self.cache.store("run", run_id, seconds=0.0)
        reason = f", {self.result.reason}" if self.result.reason else ""
        sys.stderr.write(f"{self.task.id}: {self.result.status}{reason}\n")
