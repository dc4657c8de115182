"""Which settings may differ when a stopped or finished run resumes; `regard.tools.run.run_folder` checks the others."""

from __future__ import annotations

__all__ = ["EXTEND", "FREE"]

#: Metadata of a field that sets where and on what a job runs, and does not change its results.
FREE = {"resume": "free"}

#: Metadata of a field that may differ, since it only adds to what is finished.
EXTEND = {"resume": "extend"}
