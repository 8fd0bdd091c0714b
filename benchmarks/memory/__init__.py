"""How far the predicted memory of a run is from the measured one."""
