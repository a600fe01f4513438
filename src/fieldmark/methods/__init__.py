"""One file per self-supervised method; each reads like its paper."""
