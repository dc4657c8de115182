"""Large vision-language models: the wrapper, interventions on attention, benchmarks."""

__all__: list[str] = []
