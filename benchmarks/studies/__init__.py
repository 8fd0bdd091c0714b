"""What a search finds, what a matrix and a cluster survive, and what the study code costs."""
