"""Networks from timm, and the provenance of their weights."""
