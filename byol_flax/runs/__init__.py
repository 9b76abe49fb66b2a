"""How a run lives, whatever it trains.

The loop, checkpoints and records, the workdir and its files, the processes of a
run and their signals, and what is told of it: metrics log and console.
"""
