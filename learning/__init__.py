"""Mathematics only: algorithms, query strategies, metrics, the held-out rule. No I/O but a model's own folder."""
