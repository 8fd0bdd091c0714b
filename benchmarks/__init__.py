"""Scripts that measured what README.md and docs/ claim: `python -m benchmarks.<folder>.<script>`.

Run from the root of a checkout. Each folder has a README.md that lists its scripts, and `results/`
with what they wrote. Limits: nothing here is installed, and nothing here imports the tests.
"""
