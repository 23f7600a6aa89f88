"""One run from request to result: budget, rounds, winners, and the loop that drives it."""
