"""``python -m fieldmark`` and ``torchrun -m fieldmark``."""

from fieldmark.cli.app import main

if __name__ == "__main__":
    main()
