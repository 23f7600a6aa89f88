"""`python -m service.cli` is `sitsearch`."""

from service.cli import main

if __name__ == "__main__":
    main()
