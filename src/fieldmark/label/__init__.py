"""A few labels to a classifier: heads, probabilities, sets, the unknown, and what to label next."""
