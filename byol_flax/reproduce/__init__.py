"""The paper's ablations as sweeps: what they run, cost and find."""
