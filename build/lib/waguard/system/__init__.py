"""The machine and its service manager: files, file descriptors, processes, deadlines, signals."""
