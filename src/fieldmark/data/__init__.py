"""Photos: where they come from, how they are decoded, stored, sampled and viewed."""
