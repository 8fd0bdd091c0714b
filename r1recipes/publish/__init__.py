"""Weights in other forms, recipes with their proof, and the Hub."""
