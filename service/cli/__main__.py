"""`python -m sitsearch.service.cli` is `sitsearch`."""

from sitsearch.service.cli import main

if __name__ == "__main__":
    main()
