"""Hands a result on: exports the weights in other forms, each checked, and shares recipes with
their proof, as files or on the Hub."""
