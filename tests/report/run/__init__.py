"""Pages of real runs: complete, broken off, damaged, compared; and pages while a run trains."""
