"""``python -m xattnres_monai``."""

from xattnres_monai.cli import main

if __name__ == "__main__":
    main()
