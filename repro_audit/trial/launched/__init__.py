"""A trial of a command: the interpreters that it starts, each of which may train, and what they leave.

`command` runs it in the trial's process, `hook` reaches the interpreters below it, `traced` makes a process of the
trial of each, and `gathering` makes one trial of them all.
"""
