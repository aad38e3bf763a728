"""The bench: one question a file, ours against the named peers in alternating rounds of one run.

Read in this order: `question` (what is asked and what must be reached), `contestant` (a process that answers rounds),
`rounds` (who runs when, and the figures), `report` and `plot` (what is written to `results`), then any question.
`child` is the program inside each Python contestant; `peers` holds the other side of each question.
"""
