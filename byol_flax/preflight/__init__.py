"""What a run would take on a TPU slice, found out without one."""
