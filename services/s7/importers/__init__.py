"""Sources of other tools (TIA Portal, STEP 7, tag tables) -> layouts of ours."""
