"""Evaluation of arms on one benchmark: samples, answers, aggregates, statistics, tables and caveats."""
