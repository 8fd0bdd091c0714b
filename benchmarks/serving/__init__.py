"""`r1recipes report --serve` with many runs: how fast it opens, what it costs while it is idle."""
