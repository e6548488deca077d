"""`python -m prerank` is `prerank`."""

from prerank.cli import main

if __name__ == "__main__":
    main()
