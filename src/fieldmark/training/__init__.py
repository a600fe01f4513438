"""The loop, which knows no method, and what keeps it honest and restartable."""
