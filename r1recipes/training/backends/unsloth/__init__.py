"""The backend for one NVIDIA GPU: trains through Unsloth, with vLLM in the trainer, and compares
what they loaded with the plan."""
