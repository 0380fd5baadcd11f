"""`python -m papertrial`, also under torchrun."""

from papertrial.app.cli import main

if __name__ == "__main__":
    main()
