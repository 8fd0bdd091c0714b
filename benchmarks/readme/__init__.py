"""The measured tables and pictures of README.md."""
