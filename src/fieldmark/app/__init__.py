"""The service: an HTTP API over an index and its encoder, and the browser app that uses it."""
