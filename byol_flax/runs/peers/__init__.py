"""The processes of a run keep an eye on each other.

First comes the roll call (`roll_call`): process 0 waits until each process has
said who it is and what it is about to run. From then on every process keeps one
connection to process 0 and watches it (`watch`). So a process that never comes,
is lost, hangs or fails is named on all others, which then end as well.
"""
