"""What a recipe names on this machine: what is looked at, and what is said when it is not there."""
