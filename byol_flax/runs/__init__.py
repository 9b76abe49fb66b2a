"""How a run lives, whatever it trains.

Here are the loop, checkpoints and records, the workdir and its files, the
processes of a run and their signals, and the two places where a run tells how
it goes: the metrics log and the console.
"""
