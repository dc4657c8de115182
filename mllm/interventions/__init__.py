"""Training-free interventions against hallucination, one per file, and the table of their names.

Every intervention follows the contract in `regard.mllm.session.contract`. None is imported before it is used.
"""

from .registry import (
    INTERVENTIONS,
    build_intervention,
    check_interventions,
    describe,
    intervention_class,
    parse_intervention,
    parse_interventions,
)

__all__ = [
    "INTERVENTIONS",
    "build_intervention",
    "check_interventions",
    "describe",
    "intervention_class",
    "parse_intervention",
    "parse_interventions",
]
