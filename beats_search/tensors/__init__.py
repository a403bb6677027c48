"""The vocabulary that needs torch: what travels between training, compression and runtimes."""
