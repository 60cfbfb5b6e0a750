"""What ``train fuse`` reads and writes: which files, in which depth, laid over each other."""
