"""Contract tests and sample values that third parties may use; needs pytest."""
