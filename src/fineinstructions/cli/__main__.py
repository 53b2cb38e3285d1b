"""The program as a module: ``python -m fineinstructions.cli``, for who knows a Python and no place of scripts."""

from fineinstructions.cli import main

if __name__ == "__main__":
    main()
