"""Training through Unsloth, with vLLM in the trainer."""
