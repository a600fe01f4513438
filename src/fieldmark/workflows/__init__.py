"""The jobs of the command line as plain functions."""
