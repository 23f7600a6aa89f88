"""The sampling engine: step-level batching over many jobs' trajectories. Imports torch, never Ray."""
