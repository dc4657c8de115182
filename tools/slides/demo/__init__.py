"""How the embedded encoder and heads for slides are made and measured."""
