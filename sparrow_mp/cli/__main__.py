"""`python -m sparrow_mp.cli` is the same as `sparrow`."""

from sparrow_mp.cli import main

main()
