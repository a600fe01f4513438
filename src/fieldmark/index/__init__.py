"""Embeddings that can be searched: a durable store, filters, nearest neighbours, two engines."""
