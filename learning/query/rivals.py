from learning.query.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {}
