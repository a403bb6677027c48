"""Makes `python -m beats_search` the command line."""

from beats_search.cli import main

if __name__ == "__main__":
    main()
