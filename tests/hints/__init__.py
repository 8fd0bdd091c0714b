"""Every command that a message of the program names: collected from the source, then run."""
