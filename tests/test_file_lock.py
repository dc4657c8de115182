from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from regard.file_lock import ProcessLock

HOLDER = """
import sys, time
from pathlib import Path
from regard.file_lock import ProcessLock

lock = ProcessLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
time.sleep(60)
"""


def test_a_lock_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, tmp_path / "a.lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        lock = ProcessLock(tmp_path / "a.lock")
        assert not lock.acquire()
        holder.kill()
        holder.wait()
    assert lock.acquire()
    lock.release()
