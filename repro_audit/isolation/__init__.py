"""What keeps a trial's writes and processes from the user's tree and machine."""
