"""Preflight: template, BOS, lengths, rewards and disk, with real tokenizers made on the spot."""
