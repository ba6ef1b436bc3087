"""A run made smaller: rounded to fewer bits, or pruned; each result is a run folder of its own."""
