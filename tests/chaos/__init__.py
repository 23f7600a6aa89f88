"""Real processes, killed and frozen while jobs of every algorithm run: `make chaos`.

    python -m tests.chaos --minutes 10      # starts a service of its own

Prints what was done to what, how many jobs there were, and how many were lost, twice there, or ended with another
winner than the same search in one undisturbed process.
"""
