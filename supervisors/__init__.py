"""Who restarts whom: child specs, strategies, restart intensity, supervisors."""
