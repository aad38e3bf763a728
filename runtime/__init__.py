"""The machine: actors, mailboxes, references, signals, names, timers and the edges."""
