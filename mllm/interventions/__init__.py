"""Training-free methods against hallucination: one a file, the table of their names, and their text form.

Every method keeps the contract in `regard.mllm.session.edit`. No method is imported before it is asked for.
"""

from .table import INTERVENTIONS, build_intervention, intervention_class
from .text import describe, parse_intervention, parse_interventions

__all__ = [
    "INTERVENTIONS",
    "build_intervention",
    "describe",
    "intervention_class",
    "parse_intervention",
    "parse_interventions",
]
