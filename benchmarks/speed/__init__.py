"""How fast the presets are, how fast they could be, and what a trial costs."""
