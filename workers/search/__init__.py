"""Search: what algorithms are made of, the algorithms, and the runs that drive them. Pure; never torch or Ray."""
