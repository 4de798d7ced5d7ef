"""What a recorded run says, in tables, sentences and verdicts; pure functions of the run."""
