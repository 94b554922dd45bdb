"""Every block of code in the documentation, run as its reader would run it."""
