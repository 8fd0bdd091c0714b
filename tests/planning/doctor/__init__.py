"""The doctor: what it finds on this machine, and on others that a script and metadata stand for."""
