"""Predicted memory of a plan, part by part and phase by phase."""
