"""The whole service in one process, on virtual time, under faults that are drawn from one seed.

Real are the gateway's handlers, the coordinators, the searches, and the store's scripts on a real Valkey, whose clock
is the virtual one. Stood in for are the network, the processes' lives, the sampler and verifier pools (pure functions
of recipes) and the thread that renews leases (a task that does the same).

    python -m tests.simulation --schedules 1000            # seeds 0 to 999
    python -m tests.simulation --seed 417 --verbose        # one of them, with all that happens in it
    python -m tests.simulation --mutants                   # faults that were mended are put back, and must be found
"""
