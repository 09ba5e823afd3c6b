"""``python -m fa4gen``: the same as the command ``fa4gen``."""

from fa4gen.cli.app import main

if __name__ == "__main__":
    main()
