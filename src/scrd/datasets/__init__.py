"""Data sets that scrd can make or prepare by itself."""
