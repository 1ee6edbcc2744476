"""What can be set: the sections, where a value comes from, and what is said of a wrong one."""
