"""Training-free methods against hallucination: one a file, and the table of their names.

Every method keeps the contract in `regard.mllm.edit`.
"""
