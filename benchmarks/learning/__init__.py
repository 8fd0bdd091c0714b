"""How often the sentence on whether a run is learning is wrong."""
