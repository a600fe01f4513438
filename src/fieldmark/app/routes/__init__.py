"""One file a subject; each gives a ``router`` that :func:`fieldmark.app.server.create_app` includes."""
