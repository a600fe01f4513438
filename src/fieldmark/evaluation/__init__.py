"""Protocols that say how good an encoder is, and the report that tells it."""
