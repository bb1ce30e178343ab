"""What the user wrote, as values. No I/O beyond reading definition files."""
