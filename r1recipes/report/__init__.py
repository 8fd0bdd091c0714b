"""Pages and charts of runs and studies; one file each that asks for nothing from the network."""
