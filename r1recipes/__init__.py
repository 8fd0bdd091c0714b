"""One TOML recipe turns an open model into a reasoning model with GRPO on one GPU."""

__version__ = "0.1.0"
