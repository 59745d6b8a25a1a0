"""A number-guessing game on standard input and output: an interactive program that knows nothing of sparrow.

    sparrow run -d --name game -- python3 examples/guess.py 1 100
    sparrow logs -f game            # in another terminal
    sparrow inject game 50          # a line on its standard input

It ends when the number is guessed (exit code 0) or when its input ends before that (exit code 1).
"""

from __future__ import annotations

import random
import sys


def main() -> int:
    """Play; the exit code."""
    low, high = (int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) == 3 else (1, 100)
    number = random.randint(low, high)
    print(f"I think of a number from {low} to {high}.")
    tries = 0
    while True:
        try:
            guess = input("Your guess: ")  # a prompt is no whole line: sparrow shows it all the same
        except EOFError:
            print("\nYou gave up.")
            return 1
        tries += 1
        if not guess.strip().isdigit():
            print(f"{guess!r} is no number.")
        elif int(guess) == number:
            print(f"Yes, {number}! That took {tries} {'try' if tries == 1 else 'tries'}.")
            return 0
        else:
            print("Higher." if int(guess) < number else "Lower.")


if __name__ == "__main__":
    sys.exit(main())
