"""The machine: files, devices, memory, console."""
