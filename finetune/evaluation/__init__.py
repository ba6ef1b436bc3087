"""How good a run really is: metrics, intervals, baselines and the report."""
