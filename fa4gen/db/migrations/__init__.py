"""Schema migrations, run in order of their number; applied programmatically, no ini file."""
