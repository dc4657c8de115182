"""`regard train lvlm-demo`: the embedded vision-language model, from nothing."""
